package account

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parsePSTime reads what ps -o time= prints: [days-][hours:]minutes:seconds
// with hundredths on macOS.
func parsePSTime(s string) (time.Duration, error) {
	days, rest, ok := strings.Cut(s, "-")
	if !ok {
		days, rest = "0", s
	}
	n, err := strconv.Atoi(days)
	if err != nil {
		return 0, fmt.Errorf("process time %q: %w", s, err)
	}
	parts := strings.Split(rest, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, fmt.Errorf("process time %q: want minutes:seconds", s)
	}
	total := float64(n) * 24 // in units of the part before
	for i, p := range parts {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil || v < 0 {
			return 0, fmt.Errorf("process time %q: bad number %q", s, p)
		}
		if i == 0 && len(parts) == 2 {
			total *= 60 // no hours: days to minutes
		} else if i > 0 {
			total *= 60
		}
		total += v
	}
	return time.Duration(total * float64(time.Second)).Round(time.Millisecond), nil
}
