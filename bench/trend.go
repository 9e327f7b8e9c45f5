package bench

import (
	"math"
	"slices"
)

const (
	// trendBlocks is how many blocks samples are cut into. What counts of a block
	// is its median, so that a collection or a look at the wrong moment does not.
	trendBlocks = 30
	// trendBegin is the share of the samples that is left out: in it pools, heaps
	// and caches find their sizes.
	trendBegin = 0.25
	// trendQuantile is the 99.9 % quantile of Student's t with 28 degrees of
	// freedom: one run in a thousand finds growth where there is none.
	trendQuantile = 3.408
)

// A trend is how fast something grows: the slope of a line through the blocks'
// medians, and the least that it can be with some certainty.
type trend struct {
	Slope float64 // per second
	Least float64 // the lower end of its confidence interval
}

// trendOf finds the trend of samples that were taken at equal intervals of so many
// seconds. It reports false if they are too few.
func trendOf(samples []float64, interval float64) (trend, bool) {
	samples = samples[int(trendBegin*float64(len(samples))):]
	size := len(samples) / trendBlocks
	if size < 1 {
		return trend{}, false
	}
	samples = samples[len(samples)-size*trendBlocks:]
	var y []float64
	for block := range slices.Chunk(samples, size) {
		y = append(y, spread(block).Median)
	}
	slope, stderr := line(y)
	per := interval * float64(size)
	return trend{slope / per, (slope - trendQuantile*stderr) / per}, true
}

// line fits a line through points at 0, 1, 2 … by least squares, and returns its
// slope and the standard error of that. Blocks that follow one another are alike:
// by so much, the residuals' correlation, they say less.
func line(y []float64) (slope, stderr float64) {
	n := float64(len(y))
	var mean, sxy, sxx float64
	for _, v := range y {
		mean += v / n
	}
	mid := (n - 1) / 2
	for i, v := range y {
		sxy += (float64(i) - mid) * (v - mean)
		sxx += (float64(i) - mid) * (float64(i) - mid)
	}
	slope = sxy / sxx
	var sum, lag, last float64
	for i, v := range y {
		e := v - mean - slope*(float64(i)-mid)
		sum += e * e
		if i > 0 {
			lag += e * last
		}
		last = e
	}
	if sum == 0 {
		return slope, 0
	}
	alike := min(max(lag/sum, 0), .9)
	return slope, math.Sqrt(sum / (n - 2) / sxx * (1 + alike) / (1 - alike))
}
