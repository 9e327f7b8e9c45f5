// Package rank compares two sets of measurements by their ranks: the ratio of
// one to the other, with an interval in which it lies with a known confidence
// whatever their distribution is.
//
// It knows nothing of what was measured, and makes no verdict.
//
// # Method
//
// Ratios are differences of logarithms. For pairs (rounds in which both had their
// turn) the estimate is the Hodges–Lehmann median of all averages of two
// differences, and the interval is that of Wilcoxon's signed ranks. For two
// independent sets it is the median of all differences between one of either, and
// the interval is that of Mann and Whitney. Both use the exact distribution of
// the rank sum: neither normality nor a resampling is needed, and a few rounds
// that a neighbour disturbed move them little.
//
// # Memory
//
// Quadratic in the number of measurements, which Most bounds.
//
// # Concurrency
//
// Functions of their arguments.
//
// Start reading at Paired.
package rank
