"""Goldens of package chat: what transformers' apply_chat_template makes of ten
conversations, and of some that templates refuse, with each template of chat/testdata,
which have the constructs of the models they are named after.

    python scripts/goldens/chat.py

Writes chat/testdata/golden.json: for each template and conversation the text, without
and with the beginning of an answer, or null where the template raises; the ids of the
text; and, of templates that mark the assistant's words, return_assistant_tokens_mask's
mask, as the stretches of ids that have it.
"""

import json
import pathlib

from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "chat" / "testdata"

# The tokenizer of tokenize/testdata that each template is tried with.
TEMPLATES = dict(
    smollm="smollm", llama3="llama3", qwen2="qwen", qwen3="qwen", gemma="gemma", mistral="mistral",
    marked="smollm", words="mistral", spaces="qwen",
)
SPECIAL = dict(
    gemma=dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"),
    mistral=dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>"),
)


def u(text):
    return dict(role="user", content=text)


def a(text):
    return dict(role="assistant", content=text)


def s(text):
    return dict(role="system", content=text)


CONVERSATIONS = [
    [u("Hi!")],
    [u("What is 2+2?"), a("4")],
    [s("You are terse."), u("Name a colour."), a("Blue.")],
    [s("You are terse."), u("Name a colour."), a("Blue."), u("Another?"), a("Red."), u("And one more?")],
    [u("  blanks around  \n"), a("\n\nlines\nand more \n "), u("\ttab")],
    [u("Quotes \"double\" 'single' <b>&amp;</b> {{ not }} {% a %} {# tag #}"), a("back\\slash \\n and $x^2$")],
    [s("été, 北京, 🙂"), u("Überraschung — …"), a("Grüße\u00a0und 日本語 👩‍👩‍👧"), u("ok")],
    [u("Write code"), a("```python\ndef f(x):\n    return {'a': x}\n```\n"), u("Shorter"), a("f = lambda x: {'a': x}")],
    [u("a"), a("<think>\nsome thought\n</think>\n\nanswer"), u("b"), a("<think>x</think>y")],
    [s(""), u("1\n2\n3"), a(""), u("<|im_end|> #### 4 </s><eos>"), a("#### 18")],
    # what some templates refuse
    [a("first"), u("then")],
    [u("a"), u("b"), a("c")],
    [u("a"), s("late"), a("b")],
]


def stretches(mask):
    found = []
    for i, m in enumerate(mask):
        if m and i and mask[i - 1]:
            found[-1][1] = i + 1
        elif m:
            found.append([i, i + 1])
    return found


def main():
    cases = []
    for name, folder in TEMPLATES.items():
        special = SPECIAL.get(folder, dict(bos_token="<|begin_of_text|>", eos_token="<|im_end|>"))
        tok = PreTrainedTokenizerFast(tokenizer_file=str(ROOT / "tokenize" / "testdata" / folder / "tokenizer.json"), **special)
        tok.chat_template = (OUT / f"{name}.jinja").read_text()
        marked = name in ("marked", "words")
        for messages in CONVERSATIONS:
            case = dict(template=name, tokenizer=folder, special=special, messages=messages, text=None, reply=None, ids=None)
            try:
                case["text"] = tok.apply_chat_template(messages, tokenize=False)
                case["reply"] = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except Exception as e:
                assert type(e).__name__ == "TemplateError", e
                case["error"] = str(e)
            else:
                out = tok.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=marked)
                case["ids"] = out["input_ids"]
                if marked:
                    case["mask"] = stretches(out["assistant_masks"])
            cases.append(case)
    text = ",\n".join(json.dumps(c, ensure_ascii=True, separators=(",", ":")) for c in cases)
    (OUT / "golden.json").write_text("[\n" + text + "\n]\n")
    print(f"{len(cases)} cases, {sum(c['text'] is None for c in cases)} refused")


if __name__ == "__main__":
    main()
