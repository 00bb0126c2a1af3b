package shrink

import "sort"

// most is the largest number of widths that are tried.
const most = 6

// search finds the narrowest of some widths at which at most within is lost. The
// widths become narrower, and errors, which grow, say how much of the outputs each
// loses before training. What is lost after training is taken to grow with them,
// evenly between two widths that were tried, so that each trial goes where the limit
// is expected; first is where it begins. It returns -1 when nothing tried will do.
func search(errors []float64, first int, within float64, try func(i int) (lost float64, err error)) (int, error) {
	type tried struct {
		at          int
		error, lost float64
	}
	good, bad := tried{at: -1}, tried{at: len(errors)} // at full width nothing is lost
	next := first
	for range most {
		lost, err := try(next)
		if err != nil {
			return 0, err
		}
		if now := (tried{next, errors[next], lost}); lost <= within {
			good = now
		} else {
			bad = now
		}
		if bad.at-good.at <= 1 {
			break
		}
		limit := 2 * good.error // of a width that loses nothing
		switch {
		case bad.at < len(errors):
			limit = good.error + (bad.error-good.error)*(within-good.lost)/(bad.lost-good.lost)
		case good.lost > within/2:
			limit = good.error * within / good.lost
		}
		next = sort.SearchFloat64s(errors, limit) - 1
		next = max(good.at+1, min(next, bad.at-1))
	}
	return good.at, nil
}
