package message

import (
	"fmt"
	"testing"
)

// head writes a request down as policies see it.
func head(r *Request) string {
	s := fmt.Sprintf("%s %s %s %s %q %d", r.Method, r.Scheme, r.Authority, r.Path, r.Upgrade, r.Length)
	for name, value := range r.Header.All() {
		s += fmt.Sprintf(" %s=%s", name, value)
	}
	return s
}

// TestOriginal: whatever filters do to a request, its head can be had as it came.
func TestOriginal(t *testing.T) {
	var r, got Request
	var o Original
	for range 2 { // the second time with used memory
		r.SetMethod([]byte("GET"))
		r.SetPath([]byte("/secret?a=1"))
		r.SetAuthority([]byte("shop"))
		r.Scheme = []byte("http")
		r.Length = 7
		for i := range 20 {
			r.Header.Add(fmt.Sprintf("x-%d", i), "as it came")
		}
		r.Header.Add("Authorization", "Bearer x")
		want := head(&r)
		o.Keep(&r)
		r.SetPath([]byte("/elsewhere"))
		r.SetMethod([]byte("POST"))
		r.SetAuthority([]byte("other"))
		r.Header.Del("authorization")
		r.Header.Set("x-3", "another value, and a longer one")
		r.Header.DelFirst(Unknown)
		for i := range 100 { // until the arena has moved
			r.Header.Add(fmt.Sprintf("x-more-%d", i), "of a filter")
		}
		changed := head(&r)
		o.CopyTo(&got, &r)
		if s := head(&got); s != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
		if v, _ := got.Header.ValueOf(Authorization); string(v) != "Bearer x" {
			t.Errorf("authorization is %q to who asks by id, want what came", v)
		}
		if _, n := got.Header.First(Unknown, "x-3"); n != 1 {
			t.Errorf("%d fields named x-3, want 1", n)
		}
		got.Header.Set("x-5", "of a review") // which nobody else sees
		got.SetPath([]byte("/"))
		if s := head(&r); s != changed {
			t.Errorf("the request became %s", s)
		}
		got.Reset()
		o.Reset()
		r.Reset()
	}
}

func BenchmarkOriginal(b *testing.B) {
	var r Request
	var o Original
	r.SetMethod([]byte("GET"))
	for i := range 7 {
		r.Header.Add(fmt.Sprintf("x-%d", i), "value")
	}
	b.ReportAllocs()
	for b.Loop() {
		o.Keep(&r)
		o.Reset()
	}
}
