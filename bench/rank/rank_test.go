package rank

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// TestSignedRanks compares with all 2^n ways to give signs.
func TestSignedRanks(t *testing.T) {
	for n := 1; n <= 12; n++ {
		want := make([]float64, n*(n+1)/2+1)
		for signs := range 1 << n {
			sum := 0
			for r := range n {
				if signs>>r&1 != 0 {
					sum += r + 1
				}
			}
			want[sum] += math.Pow(2, -float64(n))
		}
		same(t, signedRanks(n), want)
	}
}

// TestRankSums compares with all ways to choose who is of the first set.
func TestRankSums(t *testing.T) {
	for m := 1; m <= 6; m++ {
		for n := 1; n <= 6; n++ {
			want := make([]float64, m*n+1)
			ways := 0
			for who := range uint(1) << (m + n) {
				if bits.OnesCount(who) != m {
					continue
				}
				ways++
				u, others := 0, 0
				for at := range m + n {
					if who>>at&1 != 0 {
						u += others
					} else {
						others++
					}
				}
				want[u]++
			}
			for i := range want {
				want[i] /= float64(ways)
			}
			same(t, rankSums(m, n), want)
		}
	}
}

func same(t *testing.T, got, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d chances, want %d", len(got), len(want))
	}
	for i := range got {
		if math.Abs(got[i]-want[i]) > 1e-12 {
			t.Fatalf("chance of %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// TestCoverage draws measurements whose true ratio is known: intervals cover it
// as often as they say, and miss a wrong one.
func TestCoverage(t *testing.T) {
	const runs, truth = 4000, 1.07
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{5, 7, 10, 20} {
		for name, draw := range map[string]func(disturbed float64) (Ratio, error){
			"paired": func(spread float64) (Ratio, error) {
				var a, b []float64
				for range n {
					round := math.Exp(random.NormFloat64()) // what both have of it
					a = append(a, round*math.Exp(spread*random.NormFloat64()))
					b = append(b, round*truth*math.Exp(spread*random.NormFloat64()))
				}
				return Paired(a, b)
			},
			"independent": func(spread float64) (Ratio, error) {
				var a, b []float64
				for range n {
					a = append(a, math.Exp(spread*random.NormFloat64()))
					b = append(b, truth*math.Exp(spread*random.NormFloat64()))
				}
				return Independent(a, b)
			},
		} {
			covered, sum := 0.0, 0.0
			for range runs {
				r, err := draw(0.05)
				if err != nil {
					t.Fatal(err)
				}
				sum += r.Confidence
				if r.Low <= truth && truth <= r.High {
					covered++
				}
			}
			// Three standard errors of a share of 4000.
			if got, want := covered/runs, sum/runs; math.Abs(got-want) > 3*math.Sqrt(want*(1-want)/runs) {
				t.Errorf("%s, %d rounds: %.3f of the intervals cover the ratio, and they say %.3f", name, n, got, want)
			}
		}
	}
}

func TestRatio(t *testing.T) {
	a := []float64{10, 11, 12, 10, 11, 12, 13}
	b := []float64{20, 22, 24, 20, 22, 24, 26}
	r, err := Paired(a, b)
	if err != nil || math.Abs(r.Ratio-2) > 1e-9 || r.Says() != "more" || r.Confidence < 0.95 {
		t.Errorf("twice as much: %+v, %v", r, err)
	}
	if r, err = Paired(b, a); err != nil || r.Says() != "less" {
		t.Errorf("half as much: %+v, %v", r, err)
	}
	if r, err = Paired(a, a); err != nil || r.Says() != "not told apart" || r.Ratio != 1 {
		t.Errorf("the same: %+v, %v", r, err)
	}
	// One round that a neighbour spoilt moves the ratio little.
	b[3] = 2000
	if r, err = Paired(a, b); err != nil || r.Ratio < 1.9 || r.Ratio > 2.3 {
		t.Errorf("with a spoilt round: %+v, %v", r, err)
	}
	// Three rounds cannot give 95 %.
	if r, err = Paired(a[:3], b[:3]); err != nil || r.Confidence > 0.8 {
		t.Errorf("three rounds: %+v, %v", r, err)
	}
	for _, bad := range [][2][]float64{{{1}, {1, 2}}, {{}, {}}, {{0}, {1}}, {{1}, {math.NaN()}}, {make([]float64, Most+1), make([]float64, Most+1)}} {
		if r, err := Paired(bad[0], bad[1]); err == nil {
			t.Errorf("%d and %d measurements: %+v, want an error", len(bad[0]), len(bad[1]), r)
		}
	}
}
