// Package tokenize turns text into token ids with the tokenizer that a model's
// own files describe: tokenizer.json, vocab.txt, vocab.json with merges.txt, or
// spiece.model.
//
// A tokenizer is a pipeline of plain parts, as in the Hugging Face tokenizers
// library, whose results it repeats id for id:
//
//	added tokens → normalizers → pre-tokenizers → model → template
//
// Added tokens such as [SEP] are cut out of the text first, the rest is
// normalized (case, accents, white space), split into pieces, and each piece is
// split by the model (WordPiece, BPE or Unigram); the template then puts the
// special tokens around one input or a pair. A part that is not known is
// refused by its name when the files are read, never left out.
//
// Text that is not valid UTF-8 is read as Python reads bytes with
// errors="replace": see [Valid].
//
// The files are untrusted: sizes and ids are checked before use, and what is
// wrong is said in one sentence with file, key, expected and found.
package tokenize
