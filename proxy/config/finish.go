package config

import (
	"cmp"
	"fmt"
	"slices"
)

// What is meant where a document says nothing, beside the default tags of the
// types.
const (
	defaultName      = "waypoint"
	defaultNamespace = "default"
	clusterDomain    = "svc.cluster.local"
)

// finish completes and checks what was read. Only now is the namespace known of
// objects that name none.
func (d *decoder) finish() {
	c := d.c
	c.Metadata.Name = cmp.Or(c.Metadata.Name, defaultName)
	c.Metadata.Namespace = cmp.Or(c.Metadata.Namespace, defaultNamespace)
	for i := range d.r.list {
		d.inNamespace(&d.r.list[i].Object)
	}
	for _, dr := range d.drafts {
		d.inNamespace(&dr.broken.ID)
		if dr.object != nil {
			dr.object.Head().Namespace = dr.broken.ID.Namespace
		}
	}
	d.doubles()
	for _, dr := range d.drafts {
		if dr.object != nil && !dr.failed {
			d.r.turnTo(dr.kind.name, dr.object.Head())
			dr.object.complete(c)
			dr.object.check(d.r)
			dr.failed = d.r.failed
		}
		if dr.failed {
			c.Broken = append(c.Broken, dr.broken)
		} else {
			dr.kind.add(c, dr.object)
		}
	}
	Sort(d.r.list)
}

// Sort puts problems in the order in which they are met in the files.
func Sort(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

func (d *decoder) inNamespace(id *ID) {
	if id.Namespace == "" && id.Kind != DocumentKind {
		id.Namespace = d.c.Metadata.Namespace
	}
}

// doubles finds objects of one name. None of them is taken: which one was meant
// is not ours to guess.
func (d *decoder) doubles() {
	first := make(map[ID]*draft, len(d.drafts))
	for _, dr := range d.drafts {
		id := dr.broken.ID
		if id.Name == "" {
			continue
		}
		other := first[id]
		if other == nil {
			first[id] = dr
			continue
		}
		d.double(dr, other)
		if !other.twice {
			d.double(other, dr)
		}
	}
}

func (d *decoder) double(dr, other *draft) {
	b := &dr.broken
	d.r.begin(b.ID, b.Origin, b.File, b.At)
	d.r.add(CodeObjectTwice, b.At, "",
		fmt.Sprintf("there is another %s at %s:%d", b.ID, other.broken.File, other.broken.At.Line),
		"rename or remove one of them")
	dr.failed, dr.twice = true, true
}
