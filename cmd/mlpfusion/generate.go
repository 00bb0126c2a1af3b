package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"mlpfusion/chat"
	"mlpfusion/generate"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/tokenize"
	"mlpfusion/train"
)

// writing is how the commands that write text do it.
type writing struct {
	options       generate.Options
	earlyStopping string
	precision     string
	greedy        bool
	// chat has prompts be what a user says, behind the system's words, by the template of
	// this name.
	chat             bool
	system, template string
	// flags are those of a command that writes as the model's generation_config.json
	// says where they are not given; nil if it does not.
	flags *pflag.FlagSet
}

// precisions are what the flag precision may be where text is written.
var precisions = map[string]kernel.Precision{"fp32": kernel.FP32, "bf16": kernel.BF16, "int8": kernel.INT8}

// writingFlags are those that only mean something where text is written.
var writingFlags = []string{"max-new-tokens", "min-new-tokens", "repetition-penalty", "beam", "length-penalty", "no-repeat-ngram", "early-stopping", "precision", "batch", "dev", "output"}

// add adds the flags, with the options of now as defaults.
func (w *writing) add(f *pflag.FlagSet) {
	w.addTokens(f)
	w.addBeams(f)
}

// addBeams adds the flags of beam search, and of several texts at a time.
func (w *writing) addBeams(f *pflag.FlagSet) {
	o := &w.options
	f.IntVar(&o.Beams, "beam", o.Beams, "beam search of this width; 1 takes the most probable token each time")
	f.Float64Var(&o.LengthPenalty, "length-penalty", o.LengthPenalty, "a finished text's log-probability is divided by length to this power (beam search)")
	f.StringVar(&w.earlyStopping, "early-stopping", "false", "when a beam search ends, as in transformers: false, true or never")
	f.IntVar(&o.Batch, "batch", 32, "sequences written at a time; each beam is one")
}

// addSampling adds the flags of how tokens are drawn.
func (w *writing) addSampling(f *pflag.FlagSet) {
	f.BoolVar(&w.greedy, "greedy", false, "take the most probable token each time (the default)")
	f.Float64Var(&w.options.Temperature, "temperature", 1, "draw tokens at random, their logits divided by this")
	f.IntVar(&w.options.TopK, "top-k", 0, "draw from the K most probable tokens only; 0: all")
	f.Float64Var(&w.options.TopP, "top-p", 0, "draw from the most probable tokens that together have this probability only; 0: all")
}

// sampled reads what the flags of addSampling say.
func (w *writing) sampled(f *pflag.FlagSet) error {
	w.flags = f
	w.options.Sample = f.Changed("temperature") || f.Changed("top-k") || f.Changed("top-p")
	if w.greedy && (w.options.Sample || w.options.Beams > 1) {
		return usageError{fmt.Errorf("expected --greedy alone, found it with beam search or sampling")}
	}
	if err := above0(f, "temperature"); err != nil {
		return err
	}
	if !w.options.Sample {
		w.options.Temperature = 0
	}
	return nil
}

// addConversation adds the flags of how a conversation is written.
func (w *writing) addConversation(f *pflag.FlagSet) {
	f.StringVar(&w.system, "system", "", "the system's `words` before the conversation")
	addTemplate(f, &w.template)
}

// addTokens adds the flags of how each token is chosen.
func (w *writing) addTokens(f *pflag.FlagSet) {
	o := &w.options
	f.IntVar(&o.MaxNewTokens, "max-new-tokens", o.MaxNewTokens, "write at most this many tokens")
	f.IntVar(&o.MinNewTokens, "min-new-tokens", 0, "no text ends before this many tokens")
	f.Float64Var(&o.RepetitionPenalty, "repetition-penalty", 1, "divide the logits of tokens that were there before by this, or multiply those below 0")
	f.IntVar(&o.NoRepeatNGram, "no-repeat-ngram", o.NoRepeatNGram, "no n-gram of this length occurs twice; 0: any may")
	f.StringVar(&w.precision, "precision", "fp32", "fp32, bf16 for bfloat16 products, or int8 for weights of whole numbers: the fewer bits, the less memory each token reads")
}

// check reads what the flags say.
func (w *writing) check(f *pflag.FlagSet, seed uint64) error {
	const beams = "--beam above 1"
	searches := w.options.Beams > 1
	if err := onlyWith(f, []condition{{"length-penalty", searches, beams}, {"early-stopping", searches, beams}}); err != nil {
		return err
	}
	switch w.earlyStopping {
	case "", "false": // the first where there is no such flag
	case "true":
		w.options.EarlyStopping = generate.StopFull
	case "never":
		w.options.EarlyStopping = generate.StopNever
	default:
		return usageError{fmt.Errorf("early-stopping: expected false, true or never, found %q", w.earlyStopping)}
	}
	if _, ok := precisions[w.precision]; !ok {
		return usageError{fmt.Errorf("precision: expected fp32, bf16 or int8, found %q", w.precision)}
	}
	w.options.Seed = seed
	if err := w.options.Check(); err != nil {
		return usageError{err}
	}
	return nil
}

func (a *app) generateCommand() *cobra.Command {
	w := &writing{options: generate.Options{MaxNewTokens: 64, Beams: 1, LengthPenalty: 1}}
	var prompt, input string
	var endPrompt bool
	c := &cobra.Command{
		Use:   "generate MODEL",
		Short: "Write text with a language model",
		Long: `Go on with a prompt, or with each line of a file or of standard input, with the
tokens of transformers' generate: the most probable one each time, by beam
search, or drawn at random where --temperature, --top-k or --top-p is given. As
there, MODEL's generation_config.json says what is done where no flag does.

Prints the new text as it comes; for several prompts a line each, in which a line
end is written as a space; or JSON objects, a line each.`,
		Example: `  mlpfusion generate MODEL --prompt "The meaning of life is"
  mlpfusion generate MODEL --prompt "Once upon a time" --temperature 0.8 --top-k 50 --top-p 0.95 --seed 1
  mlpfusion generate MODEL --chat --prompt "Why is the sky blue?"
  mlpfusion generate MODEL --beam 5 --no-repeat-ngram 3 --json < prompts.txt
  mlpfusion generate tuned --end-prompt --beam 5 --prompt "Aarhus : leaderName : Jacob_Bundsgaard"`,
		Args: exactly("MODEL"),
		RunE: func(c *cobra.Command, args []string) error {
			f := c.Flags()
			if f.Changed("prompt") && f.Changed("input") {
				return usageError{fmt.Errorf("expected --prompt or --input, found both")}
			}
			if w.chat && endPrompt {
				return usageError{fmt.Errorf("expected --chat or --end-prompt, found both")}
			}
			if err := cmp.Or(w.sampled(f), w.check(f, a.seed), onlyWith(f, []condition{{"system", w.chat, "--chat"}, {"chat-template", w.chat, "--chat"}})); err != nil {
				return err
			}
			prompts := func() ([]string, error) { return []string{prompt}, nil }
			if !f.Changed("prompt") {
				prompts = func() ([]string, error) { return a.readLines(input) }
			}
			return a.generate(args[0], prompts, endPrompt, w)
		},
	}
	f := c.Flags()
	f.StringVar(&prompt, "prompt", "", "the text to go on with")
	f.StringVar(&input, "input", "", "file of prompts, one a line (default standard input)")
	f.BoolVar(&endPrompt, "end-prompt", false, "end the prompt as train does in tasks such as webnlg: a text is to be written to it, not the prompt to be gone on with")
	f.BoolVar(&w.chat, "chat", false, "a prompt is what a user says, and the model answers, by its chat template")
	w.addConversation(f)
	w.addSampling(f)
	w.add(f)
	a.addAdapter(f)
	arrange(c,
		section{"Prompts", "prompt input end-prompt chat system chat-template adapter"},
		section{"Choice of tokens", "beam temperature top-k top-p greedy repetition-penalty no-repeat-ngram length-penalty early-stopping"},
		section{"The run", "max-new-tokens min-new-tokens batch precision help"})
	return c
}

// readLines reads the lines of a file, or of standard input.
func (a *app) readLines(path string) ([]string, error) {
	in, name := os.Stdin, "standard input"
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // only read
		in, name = f, path
	}
	scan := scanLines(a.ctx, in)
	var lines []string
	for line := range scan.lines {
		lines = append(lines, tokenize.Valid(line))
	}
	if scan.err != nil {
		return nil, fmt.Errorf("%s: %w", name, scan.err)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s: expected at least one line, found none", name)
	}
	return lines, nil
}

// writer is a language model made ready to write.
type writer struct {
	template  *chat.Template // of conversations, where these are asked for
	system    string
	generator *generate.Generator
	tok       tokenize.Tokenizer
	config    *model.Config
	longest   int
}

func (a *app) newWriter(name string, w *writing) (*writer, error) {
	dir, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if cfg, err := model.ReadConfig(dir); err != nil {
		return nil, err
	} else if cfg.Head != model.LanguageModel {
		return nil, fmt.Errorf("%s: expected a language model, found a %s model with another head", dir.Path, cfg.Type)
	}
	m, err := a.loadAdapted(dir, model.LoadOptions{})
	if err != nil {
		return nil, err
	}
	tok, err := tokenizer(dir.Path, m.Config)
	if err != nil {
		return nil, err
	}
	g, err := generate.New(a.pool, m, precisions[w.precision])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Path, err)
	}
	for _, id := range m.Config.EndIDs {
		if id >= 0 && id < m.Config.Vocab {
			w.options.Stop = append(w.options.Stop, int32(id))
		}
	}
	cfg, err := generate.ReadConfig(dir.Path)
	if err != nil {
		return nil, err
	}
	if cfg != nil && cfg.EndIDs != nil {
		w.options.Stop = cfg.EndIDs
	}
	if cfg != nil && w.flags != nil {
		if err := cfg.Apply(&w.options, w.flags.Changed); err != nil {
			return nil, fmt.Errorf("%s: %w", dir.Path, err)
		}
		if len(cfg.Ignored) > 0 {
			a.ui.say("generation_config.json: not followed: %s", strings.Join(cfg.Ignored, ", "))
		}
	}
	wr := &writer{generator: g, tok: tok, config: m.Config, longest: m.MaxLength()}
	if w.chat {
		err = a.converse(wr, dir.Path, w)
	}
	return wr, err
}

// converse makes a writer one that answers.
func (a *app) converse(g *writer, model string, w *writing) (err error) {
	if g.config.TwoStacks() {
		return fmt.Errorf("%s: expected a model without an encoder, such as llama, found %s", model, g.config.Type)
	}
	if g.template, err = a.template(model, w.template, g.tok); err != nil {
		return err
	}
	g.system = w.system
	return g.stopAtEnd(&w.options)
}

// stopAtEnd has texts stop at the token that ends an answer.
func (w *writer) stopAtEnd(o *generate.Options) error {
	end, err := w.template.End(w.tok)
	if err == nil && end >= 0 && int(end) < w.config.Vocab && !slices.Contains(o.Stop, end) {
		o.Stop = append(o.Stop, end)
	}
	return err
}

// question is a conversation of one question, behind the system's words.
func (w *writer) question(text string) []chat.Message {
	var turns []chat.Message
	if w.system != "" {
		turns = append(turns, chat.Message{Role: chat.System, Content: w.system})
	}
	return append(turns, chat.Message{Role: chat.User, Content: text})
}

// answering are the tokens after which the model is to answer.
func (w *writer) answering(turns []chat.Message) ([]int32, error) {
	text, err := w.template.Render(turns, true)
	if err != nil {
		return nil, err
	}
	ids, _ := w.tok.Plain(text)
	return ids, w.readable(text, ids)
}

// ids returns a prompt's tokens, ended as train does or to be gone on with.
func (w *writer) ids(prompt string, ended bool, room int) ([]int32, error) {
	if w.template != nil {
		return w.answering(w.question(prompt))
	}
	if ended || w.config.TwoStacks() {
		f, err := train.TextFormat(w.config, max(w.longest-room, 4))
		if err != nil {
			return nil, err
		}
		ids := f.Prompt(w.tok, prompt)
		return ids, w.readable(prompt, ids)
	}
	ids := w.tok.Encode(prompt, nil, 0).IDs
	if end := w.config.EndID(); len(ids) == 0 && end >= 0 && end < w.config.Vocab {
		ids = []int32{int32(end)} // a text from its beginning
	}
	return ids, w.readable(prompt, ids)
}

// readable refuses a prompt that the model cannot read.
func (w *writer) readable(prompt string, ids []int32) error {
	err := task.Readable(ids, w.config.Vocab)
	if err != nil {
		err = fmt.Errorf("%w in %.60q", err, prompt)
	}
	return err
}

// generated is one prompt's text.
type generated struct {
	Prompt  string   `json:"prompt"`
	Text    string   `json:"text"`
	Tokens  int      `json:"tokens"`
	Stopped bool     `json:"stopped"`         // by the end token, not for length
	Score   *float64 `json:"score,omitempty"` // of a beam search
}

func (a *app) generate(name string, read func() ([]string, error), ended bool, w *writing) error {
	g, err := a.newWriter(name, w)
	if err != nil {
		return err
	}
	prompts, err := read()
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	if len(prompts) == 1 && !a.ui.json {
		var s stream
		_, err := a.write(g, prompts, ended, w, generate.Watch{
			Token: func(_ int, id int32) {
				io.WriteString(out, s.add(g.tok, id))
				out.Flush() //nolint:errcheck // told at the end
			},
			Done: func(_ int, r generate.Result) {
				fmt.Fprintln(out, g.tok.Decode(r.Tokens)[s.printed:])
				out.Flush() //nolint:errcheck // told at the end; the line ends before what is said of it
			},
		})
		if err != nil {
			if s.printed > 0 {
				fmt.Fprintln(out)
			}
			out.Flush() //nolint:errcheck // the other error counts
			return err
		}
		return out.Flush()
	}
	// Texts end in any order and are printed in that of the prompts.
	waiting := make([]*generated, len(prompts))
	next := 0
	_, err = a.write(g, prompts, ended, w, generate.Watch{Done: func(i int, r generate.Result) {
		waiting[i] = &generated{prompts[i], g.tok.Decode(r.Tokens), len(r.Tokens), r.Stopped, nil}
		if w.options.Beams > 1 {
			waiting[i].Score = &r.Score
		}
		for ; next < len(waiting) && waiting[next] != nil; next++ {
			if a.ui.json {
				json.NewEncoder(out).Encode(waiting[next]) //nolint:errcheck // Flush tells
			} else {
				fmt.Fprintln(out, oneLine(waiting[next].Text))
			}
			waiting[next] = &generated{}
		}
		out.Flush() //nolint:errcheck // told at the end
	}})
	if err != nil {
		return err
	}
	return out.Flush()
}

// oneLine writes line ends as spaces.
func oneLine(text string) string {
	return strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ").Replace(text)
}

// write writes a text to each prompt and says how fast it went.
func (a *app) write(g *writer, prompts []string, ended bool, w *writing, watch generate.Watch) ([]generate.Result, error) {
	ids := make([][]int32, len(prompts))
	for i, p := range prompts {
		var err error
		if ids[i], err = g.ids(p, ended, w.options.MaxNewTokens); err != nil {
			return nil, err
		}
	}
	return a.writeBehind(g, ids, w, watch)
}

// writeBehind is write of prompts as tokens.
func (a *app) writeBehind(g *writer, prompts [][]int32, w *writing, watch generate.Watch) ([]generate.Result, error) {
	var bar *progress
	if len(prompts) > 1 && (!term.IsTerminal(int(os.Stdout.Fd())) || a.ui.json) {
		bar = a.ui.progress("write", "text", len(prompts))
		done, then := 0, watch.Done
		watch.Done = func(i int, r generate.Result) {
			if then != nil {
				then(i, r)
			}
			done++
			bar.set(done, len(prompts), "")
		}
	}
	start := time.Now()
	results, err := g.generator.Run(a.ctx, prompts, w.options, watch)
	if err != nil {
		if bar != nil {
			bar.stop()
		}
		return nil, err
	}
	seconds := time.Since(start).Seconds()
	if bar != nil {
		bar.end()
	}
	tokens := 0
	for _, r := range results {
		tokens += len(r.Tokens)
	}
	a.ui.say("%d tokens in %.1f s, %s tokens/s", tokens, seconds, significant(float64(tokens)/seconds))
	return results, nil
}

// stream turns tokens into text as they come.
type stream struct {
	ids     []int32
	printed int // bytes of the text
}

// add returns what a further token adds. A character whose bytes are not all there
// yet waits.
func (s *stream) add(tok tokenize.Tokenizer, id int32) string {
	s.ids = append(s.ids, id)
	text := tok.Decode(s.ids)
	whole := strings.TrimRight(text, "\uFFFD")
	if len(whole) <= s.printed {
		return ""
	}
	more := whole[s.printed:]
	s.printed = len(whole)
	return more
}
