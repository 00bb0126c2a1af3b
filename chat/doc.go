// Package chat turns conversations into what a language model reads: the text that
// the model's own chat template makes of them, and its tokens, with those of the
// assistant marked.
//
// Templates are Jinja's, as transformers renders them (apply_chat_template): they are
// programs of the model's makers, kept in chat_template.jinja, in
// additional_chat_templates, in tokenizer_config.json or in a GGUF file. See
// docs/decisions/chat-templates.md for the library that runs them.
package chat
