package config

import (
	"fmt"
	"strconv"
	"time"
)

// Duration is a Gateway API duration (GEP-2257): up to four numbers of up to
// five digits, each with one of the units h, m, s and ms, as in 1h30m or 25ms.
type Duration time.Duration

// durationUnits go from wide to narrow.
var durationUnits = []struct {
	name string
	d    time.Duration
}{{"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}

// maxDuration is the longest that the format can say.
const maxDuration = 99999*time.Hour + 59*time.Minute + 59*time.Second + 999*time.Millisecond

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	var sum time.Duration
	rest := string(text)
	for n := 0; rest != "" || n == 0; n++ {
		digits := 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			digits++
		}
		letters := digits
		for letters < len(rest) && rest[letters] >= 'a' && rest[letters] <= 'z' {
			letters++
		}
		unit := unitOf(rest[digits:letters])
		if n == 4 || digits == 0 || digits > 5 || unit == 0 {
			return fmt.Errorf("%q is not a duration", text)
		}
		number, err := strconv.Atoi(rest[:digits])
		if err != nil {
			return fmt.Errorf("%q is not a duration", text)
		}
		sum += time.Duration(number) * unit
		rest = rest[letters:]
	}
	if sum > maxDuration {
		return fmt.Errorf("%q is longer than %s", text, Duration(maxDuration))
	}
	*d = Duration(sum)
	return nil
}

func unitOf(name string) time.Duration {
	for _, u := range durationUnits {
		if u.name == name {
			return u.d
		}
	}
	return 0
}

// MarshalText writes the duration so that UnmarshalText reads it, to the
// millisecond.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String returns the duration as it is written in a document.
func (d Duration) String() string {
	rest := min(max(time.Duration(d), 0), maxDuration)
	var out []byte
	for _, u := range durationUnits {
		if n := rest / u.d; n > 0 {
			out = append(strconv.AppendInt(out, int64(n), 10), u.name...)
			rest -= n * u.d
		}
	}
	if out == nil {
		return "0s"
	}
	return string(out)
}
