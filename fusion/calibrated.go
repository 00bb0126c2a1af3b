package fusion

// calibrated is fusion for the smallest output error on calibration inputs: the
// units that matter most become the centres of clusters (pick, around), then
// the down projection is refitted (refit) and all weights descend the output
// error for a moment (fit). P is the cluster sizes, as in fusion, so training
// goes on in the same form.
func init() {
	register(Method{Name: "calibrated", Rank: 2, About: "the units that matter most on texts, fitted to the original's output, with P",
		Clusters: true, KeepsP: true, Refits: true, Blind: "fusion", Units: true, texts: true, block: fused,
		implied: func(m *MLP, o *Options) {
			o.Select, o.Refit = true, true
			if o.Fit == 0 {
				o.Fit = fitSteps(m, o.Width)
			}
		}})
}
