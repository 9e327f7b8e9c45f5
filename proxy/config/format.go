package config

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// A format is how a string must be formed. The schema shows the pattern, the
// decoder the words.
type format struct {
	pattern *regexp.Regexp
	max     int
	want    string
}

const (
	label     = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
	subdomain = label + `(\.` + label + `)*`
)

// formats are named by the rule tags of the types.
var formats = map[string]format{
	"name":             {regexp.MustCompile(`^` + subdomain + `$`), 253, "lower case letters, digits, '-' and '.'"},
	"label":            {regexp.MustCompile(`^` + label + `$`), 63, "lower case letters, digits and '-'"},
	"hostname":         {regexp.MustCompile(`^` + subdomain + `$`), 253, "a DNS name in lower case"},
	"wildcardHostname": {regexp.MustCompile(`^(\*\.)?` + subdomain + `$`), 253, "a DNS name in lower case, whose first label may be *"},
	"trustDomain":      {regexp.MustCompile(`^[a-z0-9._-]+$`), 255, "lower case letters, digits, '-', '.' and '_'"},
	"header":           {regexp.MustCompile("^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$"), 256, "letters, digits and !#$%&'*+-.^_`|~"},
	"headerValue":      {regexp.MustCompile(`^[^\x00-\x08\x0a-\x1f\x7f]*$`), 4096, "no line breaks and no control characters"},
	"text":             {regexp.MustCompile(`^[^\x00-\x1f\x7f]*$`), 4096, "no line breaks and no control characters"},
}

func (f *format) fits(s string) bool { return len(s) <= f.max && f.pattern.MatchString(s) }

// nearest returns the candidate that was probably meant by word, or "": at most
// a third of it mistyped, transpositions counting once.
func nearest(word string, candidates []string) string {
	best, bestCost := "", len(word)/3+1
	if len(word) > 64 {
		return ""
	}
	for _, c := range candidates {
		if strings.EqualFold(c, word) {
			return c
		}
		if cost := distance(strings.ToLower(word), strings.ToLower(c)); cost < bestCost {
			best, bestCost = c, cost
		}
	}
	return best
}

// distance is the optimal string alignment distance: insertions, deletions,
// substitutions and swaps of neighbours, in runes.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	prev2, prev, cur := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(s); i++ {
		cur[0] = i
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(t)]
}

// oneOf writes a choice as a person reads it.
func oneOf(words []string) string {
	switch len(words) {
	case 0:
		return "nothing"
	case 1:
		return words[0]
	}
	if len(words) > 12 {
		words = append(append([]string{}, words[:12]...), "…")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// short cuts a value down to what a message can carry.
func short(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
