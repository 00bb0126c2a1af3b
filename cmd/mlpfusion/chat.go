package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mlpfusion/chat"
	"mlpfusion/generate"
	"mlpfusion/internal/choice"
)

func (a *app) chatCommand() *cobra.Command {
	w := &writing{options: generate.Options{MaxNewTokens: 512, Beams: 1}, chat: true}
	c := &cobra.Command{
		Use:   "chat MODEL",
		Short: "Talk with a language model",
		Long: `Talk with a language model: each line is what you say, and the answer comes as
it is written, by the model's own chat template. MODEL's generation_config.json says how
tokens are chosen where no flag does. What was said before is not read again.

Lines that begin with / are for the program:
  /system WORDS   what the system says before the conversation; without words, show it
  /reset          forget the conversation, but not the system's words
  /save FILE      add the conversation to a JSONL file, from which train can learn
  /help           these lines
  /quit           end, as Ctrl-D does; Ctrl-C stops an answer only

Without a terminal the lines of standard input are answered one after another.`,
		Example: `  mlpfusion chat MODEL
  mlpfusion chat MODEL --system "Answer in one sentence." --temperature 0.7 --top-p 0.9
  mlpfusion chat MODEL --greedy < questions.txt`,
		Args: exactly("MODEL"),
		RunE: func(c *cobra.Command, args []string) error {
			f := c.Flags()
			if err := w.sampled(f); err != nil {
				return err
			}
			if err := w.check(f, a.seed); err != nil {
				return err
			}
			return a.chat(args[0], w)
		},
	}
	f := c.Flags()
	w.addConversation(f)
	w.addSampling(f)
	w.addTokens(f)
	a.addAdapter(f)
	arrange(c,
		section{"The conversation", "system chat-template adapter"},
		section{"Choice of tokens", "temperature top-k top-p greedy repetition-penalty no-repeat-ngram"},
		section{"Answers", "max-new-tokens min-new-tokens precision"},
		section{"Help", "help"})
	return c
}

// dialogue is a conversation under way.
type dialogue struct {
	a        *app
	g        *writer
	options  generate.Options
	session  *generate.Session
	turns    []chat.Message // without the system's
	terminal bool           // there is one, for whom there are prompts
	stops    chan os.Signal // Ctrl-C
}

func (a *app) chat(name string, w *writing) error {
	g, err := a.newWriter(name, w)
	if err != nil {
		return err
	}
	w.options.Beams = 1 // where generation_config.json wants more
	d := &dialogue{a: a, g: g, options: w.options, terminal: term.IsTerminal(int(os.Stdin.Fd())), stops: make(chan os.Signal, 1)}
	if d.session, err = g.generator.Session(); err != nil {
		return err
	}
	// From here on Ctrl-C is ours.
	signal.Reset(os.Interrupt)
	signal.Notify(d.stops, os.Interrupt)
	if d.terminal {
		a.ui.say("%s: /help lists what it can be told, Ctrl-D ends", name)
	}
	in := scanLines(a.ctx, os.Stdin)
	for {
		d.prompt()
		select {
		case <-d.stops:
			if !d.terminal {
				return context.Canceled
			}
			fmt.Fprintln(os.Stderr)
		case line, ok := <-in.lines:
			if !ok {
				return in.err
			}
			if err := d.line(line); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil && (!d.terminal || a.ctx.Err() != nil) {
				return err
			} else if err != nil {
				a.ui.say("%v", err)
			}
		}
	}
}

// prompt shows that it is the user's turn.
func (d *dialogue) prompt() {
	if d.terminal {
		fmt.Fprint(os.Stderr, "> ")
	}
}

// commands are the words for the program.
var commands = []string{"/system", "/reset", "/save", "/help", "/quit"}

// line takes a line of the user's. The error is io.EOF when it is the last.
func (d *dialogue) line(line string) error {
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	rest = strings.TrimSpace(rest)
	switch {
	case word == "":
		return nil
	case word[0] != '/':
		return d.answer(line)
	case word == "/system" && rest == "":
		d.a.ui.say("system: %s", d.g.system)
	case word == "/system":
		d.g.system = rest
	case word == "/reset":
		d.turns = nil
	case word == "/save":
		return d.save(rest)
	case word == "/help":
		d.a.ui.say("/system WORDS, /reset, /save FILE, /help, /quit; Ctrl-C stops an answer")
	case word == "/quit":
		return io.EOF
	default:
		return choice.Unknown(word, commands)
	}
	return nil
}

// whole is the conversation with the system's words.
func (d *dialogue) whole() []chat.Message {
	if d.g.system == "" {
		return d.turns
	}
	return append([]chat.Message{{Role: chat.System, Content: d.g.system}}, d.turns...)
}

// answer writes the answer to a line. If there is none, the line is not kept.
func (d *dialogue) answer(line string) error {
	d.turns = append(d.turns, chat.Message{Role: chat.User, Content: line})
	text, err := d.write()
	if text == "" {
		d.turns = d.turns[:len(d.turns)-1]
	} else {
		d.turns = append(d.turns, chat.Message{Role: chat.Assistant, Content: text})
	}
	return err
}

// write writes the assistant's next words, until it ends them or Ctrl-C does.
func (d *dialogue) write() (string, error) {
	ids, err := d.g.answering(d.whole())
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(d.a.ctx)
	defer cancel()
	go func() {
		select {
		case <-d.stops:
			cancel()
		case <-ctx.Done():
		}
	}()
	var s stream
	r, err := d.session.Reply(ctx, ids, d.options, func(id int32) { fmt.Print(s.add(d.g.tok, id)) })
	if err != nil && ctx.Err() == nil {
		return "", err
	}
	text := d.g.tok.Decode(r.Tokens)
	fmt.Println(text[min(s.printed, len(text)):])
	return text, d.a.ctx.Err()
}

// save adds the conversation to a file, as a line of JSON.
func (d *dialogue) save(path string) error {
	if path == "" || len(d.turns) == 0 {
		return errors.New("/save: expected a file, and a conversation to be kept, found none")
	}
	line, err := json.Marshal(struct {
		Messages []chat.Message `json:"messages"`
	}{d.whole()})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		d.a.ui.say("%s: %d messages added", path, len(d.whole()))
	}
	return err
}
