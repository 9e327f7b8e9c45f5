package rank

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Most is how many measurements a set may have.
const Most = 200

// A Ratio is how one set relates to another.
type Ratio struct {
	Ratio      float64 `json:"ratio"`
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Confidence float64 `json:"confidence"` // that the interval covers the true ratio
	Count      int     `json:"count"`      // of pairs, or of the smaller set
}

// Says is what the interval says of the ratio: that it is more than one, less, or
// neither.
func (r Ratio) Says() string {
	switch {
	case r.Low > 1:
		return "more"
	case r.High < 1:
		return "less"
	}
	return "not told apart"
}

// want is the confidence that intervals are made for. Few measurements do not
// reach it: then the interval is as wide as it can be, and Confidence says less.
const want = 0.95

var errSize = errors.New("measurements are too few or too many")

// Paired compares b with a, measured in pairs.
func Paired(a, b []float64) (Ratio, error) {
	if len(a) != len(b) {
		return Ratio{}, fmt.Errorf("%d measurements against %d: they are not pairs", len(a), len(b))
	}
	la, lb, err := logs(a, b)
	if err != nil {
		return Ratio{}, err
	}
	d := make([]float64, len(la))
	for i := range la {
		d[i] = lb[i] - la[i]
	}
	var walsh []float64
	for i := range d {
		for j := i; j < len(d); j++ {
			walsh = append(walsh, (d[i]+d[j])/2)
		}
	}
	return interval(walsh, signedRanks(len(d)), len(d)), nil
}

// Independent compares b with a, measured each for itself.
func Independent(a, b []float64) (Ratio, error) {
	la, lb, err := logs(a, b)
	if err != nil {
		return Ratio{}, err
	}
	var all []float64
	for _, x := range la {
		for _, y := range lb {
			all = append(all, y-x)
		}
	}
	return interval(all, rankSums(len(la), len(lb)), min(len(la), len(lb))), nil
}

func logs(a, b []float64) (la, lb []float64, err error) {
	for _, s := range [][]float64{a, b} {
		if len(s) == 0 || len(s) > Most {
			return nil, nil, fmt.Errorf("%w: %d, want 1 to %d", errSize, len(s), Most)
		}
		for _, v := range s {
			if !(v > 0) || math.IsInf(v, 0) {
				return nil, nil, fmt.Errorf("measurement is %v: a ratio wants more than 0", v)
			}
		}
	}
	log := func(s []float64) (l []float64) {
		for _, v := range s {
			l = append(l, math.Log(v))
		}
		return l
	}
	return log(a), log(b), nil
}

// interval cuts as many of the sorted differences off either end as the rank
// sum's distribution allows.
func interval(diffs, probabilities []float64, n int) Ratio {
	slices.Sort(diffs)
	cut, tail := 0, 0.0
	for cut < (len(diffs)-1)/2 && tail+probabilities[cut] <= (1-want)/2 {
		tail += probabilities[cut]
		cut++
	}
	if cut == 0 { // all of them: the smallest and the largest are the ends
		tail = probabilities[0]
		cut = 1
	}
	m := len(diffs)
	return Ratio{
		Ratio: math.Exp(median(diffs)), Low: math.Exp(diffs[cut-1]), High: math.Exp(diffs[m-cut]),
		Confidence: 1 - 2*tail, Count: n,
	}
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// signedRanks is the distribution of Wilcoxon's sum for n pairs: the chance that
// the ranks of the positive differences sum up to each number.
func signedRanks(n int) []float64 {
	p := make([]float64, n*(n+1)/2+1)
	p[0] = 1
	for r := 1; r <= n; r++ {
		for s := len(p) - 1; s >= 0; s-- {
			p[s] /= 2
			if s >= r {
				p[s] += p[s-r] / 2
			}
		}
	}
	return p
}

// rankSums is the distribution of Mann and Whitney's U for sets of m and n: the
// chance that in so many pairs the first is larger.
func rankSums(m, n int) []float64 {
	// w[i][u] for i of the first set and the j of the second met so far. The next
	// largest of all is one of the first with chance i/(i+j), and then it is larger
	// than all j.
	w := make([][]float64, m+1)
	for i := range w {
		w[i] = make([]float64, m*n+1)
		w[i][0] = 1 // j is 0
	}
	for j := 1; j <= n; j++ {
		for i := 1; i <= m; i++ {
			p := float64(i) / float64(i+j)
			for u := m * n; u >= 0; u-- {
				v := (1 - p) * w[i][u]
				if u >= j {
					v += p * w[i-1][u-j]
				}
				w[i][u] = v
			}
		}
	}
	return w[m]
}
