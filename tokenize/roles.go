package tokenize

// SpecialTokens returns a model's special tokens by their roles, such as bos_token, as
// its files name them.
func SpecialTokens(model string) (map[string]string, error) {
	tokens := map[string]string{}
	if path := GGUFFile(model); path != "" {
		g, err := openGGUF(path)
		if err != nil {
			return nil, err
		}
		for role, id := range map[string]int32{"bos_token": g.BOS, "eos_token": g.EOS, "unk_token": g.Unknown, "pad_token": g.Pad} {
			if id >= 0 && int(id) < len(g.Tokens) {
				tokens[role] = g.Tokens[id]
			}
		}
		return tokens, nil
	}
	c, err := readConfig(model)
	if err != nil {
		return nil, err
	}
	for role, t := range c.tokens {
		tokens[role] = t.Content
	}
	return tokens, nil
}
