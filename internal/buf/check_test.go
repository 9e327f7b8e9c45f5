//go:build housecheck

package buf

import (
	"strings"
	"testing"
)

func TestPoison(t *testing.T) {
	b := append(Get(4*KiB), "hello"...)
	Put(b)
	if b[0] != poison || b[4] != poison {
		t.Errorf("a returned buffer reads %x, want poison", b[:5])
	}
}

func TestMisuse(t *testing.T) {
	for name, f := range map[string]func(){
		"returned twice":    func() { b := Get(1); Put(b); Put(b) },
		"a part":            func() { b := Get(1)[:10]; defer Put(b); Put(b[1:]) },
		"not lent":          func() { Put(make([]byte, 4*KiB)) },
		"written afterward": func() { checkPoison([]byte{poison, poison, 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v, _ := recover().(string); !strings.HasPrefix(v, "buf: ") {
					t.Errorf("recovered %q, want a panic of this package", v)
				}
			}()
			f()
		})
	}
	Put(Get(1)) // the control: use as it should be
}

func TestHolders(t *testing.T) {
	b := Get(1)
	defer Put(b)
	for who := range Holders() {
		if strings.Contains(who, "TestHolders") {
			return
		}
	}
	t.Errorf("holders are %v, want this test among them", Holders())
}
