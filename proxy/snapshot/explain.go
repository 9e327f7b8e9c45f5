package snapshot

import "github.com/sandwich-mesh/sandwich/proxy/message"

// A Considered is a rule that was looked at for a request.
type Considered struct {
	Route, Rule string
	Fails       string  // what does not hold; "" if the rule fits
	Shares      []Share // its backends
}

// A Share is one backend of a rule.
type Share struct {
	Backend string
	Weight  uint64 // of the sum of all of them
	Chosen  bool   // by the random number
}

// Explain says which rules a request meets, in order of precedence (the first
// that fits is its route), and how many others are for other paths. It is for
// people, and allocates.
func (v *Service) Explain(r *message.Request, random uint32) (met []Considered, others int) {
	if v.http == nil {
		return nil, 0
	}
	list, others := v.http.Explain(r)
	for _, one := range list {
		c := Considered{Fails: one.Fails}
		chosen := one.Result.pick(random)
		for i, to := range one.Result.routes {
			c.Route, c.Rule = to.Info.Name, to.Info.Rule
			c.Shares = append(c.Shares, Share{to.Info.Backend, one.Result.weights.Share(i), to == chosen})
		}
		met = append(met, c)
	}
	return met, others
}
