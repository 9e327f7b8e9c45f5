package config

import (
	"cmp"
	"slices"
)

// Settled is what is in force after a document has come in.
type Settled struct {
	// Config is the document, with the last good version of each object that
	// has a problem. Its Broken and Closed say what is not as it is written.
	Config *Config
	// Stale are the objects that kept their last good version.
	Stale []ID
	// Closed are the objects that have none.
	Closed []ID
	// Inactive are the objects of kinds that this version does not run.
	Inactive []ID
	// Total is how many objects there are, and Active how many of them are in
	// force as they are written.
	Total, Active int
}

// Settle merges a document with what was in force before. An object of next
// that is broken, or that bad names because a later check refused it, keeps its
// version from prev; without one it is closed, and so is what it guards. Objects
// that next does not hold are gone. prev may be nil, and neither is changed.
//
// Compile calls it with what it could not build. What it returns is the prev of
// the next time, and what State saves.
func Settle(prev, next *Config, bad ...ID) *Settled {
	if prev == nil {
		prev = &Config{}
	}
	out := &Config{APIVersion: next.APIVersion, Kind: next.Kind, Metadata: next.Metadata}
	m := merge{out: &Settled{Config: out}, broken: slices.Clone(next.Broken), refused: make(map[ID]bool, len(bad))}
	for _, id := range bad {
		m.refused[id] = true
	}
	var lists [][]placed
	for i := range kinds {
		lists = append(lists, m.take(&kinds[i], next))
	}
	for i := range kinds {
		list := m.keep(&kinds[i], prev, lists[i])
		for _, p := range list {
			kinds[i].add(out, p.object)
		}
	}
	for i := range m.broken {
		m.judge(&m.broken[i])
	}
	out.Broken = m.broken
	return m.out
}

// merge is one Settle.
type merge struct {
	out     *Settled
	broken  []Broken
	refused map[ID]bool
	kept    map[ID]bool
	told    map[ID]bool
}

// placed is an object and where it belongs: a last good version stands where
// the document has the version that is not, because order decides ties.
type placed struct {
	object Object
	file   string
	at     Pos
}

// take returns what the document has of a kind, and notes what was refused.
func (m *merge) take(k *kind, next *Config) []placed {
	if !k.active() {
		return nil
	}
	var out []placed
	for _, o := range k.objects(next) {
		h := o.Head()
		id := ID{k.name, h.Namespace, h.Name}
		if m.refused[id] {
			m.broken = append(m.broken, Broken{ID: id, Origin: h.Origin, File: h.File, At: h.At, Role: k.role, Targets: o.targets()})
			continue
		}
		out = append(out, placed{o, h.File, h.At})
	}
	m.out.Active += len(out)
	m.out.Total += len(out)
	return out
}

// keep adds what was in force before of the broken objects. When a section
// could not be read, that is all of its kind.
func (m *merge) keep(k *kind, prev *Config, list []placed) []placed {
	if !k.active() {
		return nil
	}
	have := make(map[ID]bool, len(list))
	for _, p := range list {
		h := p.object.Head()
		have[ID{k.name, h.Namespace, h.Name}] = true
	}
	wanted := make(map[ID]*Broken)
	unread := false
	for i := range m.broken {
		if b := &m.broken[i]; b.ID.Kind == k.name && b.Section {
			unread = true
		} else if b.ID.Kind == k.name {
			wanted[b.ID] = b
		}
	}
	if len(wanted) == 0 && !unread {
		return list
	}
	if m.kept == nil {
		m.kept = make(map[ID]bool)
	}
	for _, o := range k.objects(prev) {
		h := o.Head()
		id := ID{k.name, h.Namespace, h.Name}
		if b := wanted[id]; b != nil {
			m.kept[id] = true
			list = append(list, placed{o, b.File, b.At})
		} else if unread && !have[id] {
			list = append(list, placed{o, h.File, h.At})
			m.out.Stale = append(m.out.Stale, id)
			m.out.Total++
		}
	}
	slices.SortStableFunc(list, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.at.Line, b.at.Line), cmp.Compare(a.at.Column, b.at.Column))
	})
	return list
}

// judge says what becomes of one broken object.
func (m *merge) judge(b *Broken) {
	if !b.Section {
		m.out.Total++
	}
	if m.told == nil {
		m.told = make(map[ID]bool)
	}
	told := m.told[b.ID] && b.ID.Name != "" // one of two of the same name
	m.told[b.ID] = true
	switch {
	case m.kept[b.ID]:
		if !told {
			m.out.Stale = append(m.out.Stale, b.ID)
		}
		return
	case b.Section:
	case b.Inactive:
		m.out.Inactive = append(m.out.Inactive, b.ID)
	case !told:
		m.out.Closed = append(m.out.Closed, b.ID)
	}
	if b.Role != RolePlain {
		c := m.out.Config
		c.Closed = append(c.Closed, Closed{By: b.ID, Role: b.Role, Services: c.guarded(b)})
	}
}

// guarded returns the services that a broken object stands before. Where that
// cannot be told it is all that it could stand before: those of its namespace,
// or every one if it lies in the waypoint's own.
func (c *Config) guarded(b *Broken) []Key {
	every, namespace := b.Section, b.Targets == nil
	var targets []Target
	for _, t := range b.Targets {
		switch t.Kind {
		case "Service", "ServiceEntry":
			t.Namespace = cmp.Or(t.Namespace, b.ID.Namespace)
			targets = append(targets, t)
		case "Gateway":
			every = every || t.Name == c.Metadata.Name
		case "GatewayClass":
			every = true
		default:
			namespace = true
		}
	}
	every = every || namespace && b.ID.Namespace == c.Metadata.Namespace
	var out []Key
	for _, s := range c.Services {
		if every || namespace && s.Namespace == b.ID.Namespace ||
			slices.ContainsFunc(targets, func(t Target) bool { return s.Is(t.Kind, t.Namespace, t.Name) }) {
			out = append(out, s.Key())
		}
	}
	return out
}
