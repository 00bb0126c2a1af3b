package chat

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// The roles that every template knows.
const (
	System    = "system"
	User      = "user"
	Assistant = "assistant"
)

// roles are the names that files give to the roles: OpenAI's and transformers', then
// those of ShareGPT.
var roles = map[string]string{
	System: System, "developer": System,
	User: User, "human": User, "prompter": User,
	Assistant: Assistant, "gpt": Assistant, "model": Assistant, "bot": Assistant, "chatgpt": Assistant, "bing": Assistant, "bard": Assistant,
}

// toolRoles are those of the words of tools, and of the calls to them.
var toolRoles = []string{"tool", "tools", "function", "function_call", "function_response", "tool_call", "tool_response", "observation", "ipython"}

// ErrTool is RoleOf's for what a tool says.
var ErrTool = errors.New("a tool's message")

// RoleOf is the role that a name in a file means. Of a tool's it is ErrTool.
func RoleOf(name string) (string, error) {
	plain := strings.ToLower(strings.TrimSpace(name))
	if role, ok := roles[plain]; ok {
		return role, nil
	}
	if slices.Contains(toolRoles, plain) {
		return "", ErrTool
	}
	return "", fmt.Errorf("expected the role %s, %s or %s, found %q", System, User, Assistant, name)
}

// Check tells what makes a conversation one that cannot be learnt from: no messages, or
// none of the assistant.
func Check(messages []Message) error {
	if len(messages) == 0 {
		return errors.New("expected a conversation, found an empty one")
	}
	if !slices.ContainsFunc(messages, func(m Message) bool { return m.Role == Assistant }) {
		return fmt.Errorf("expected an answer of the assistant, found none in %s", count(len(messages), "message"))
	}
	return nil
}

func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
