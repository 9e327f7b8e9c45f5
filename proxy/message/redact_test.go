package message

import "testing"

func TestAppendRedacted(t *testing.T) {
	for path, want := range map[string]string{
		"/a": "/a", "/a?": "/a?", "/a?x=1": "/a?x=*", "/a?x=1&y=2": "/a?x=*&y=*", "/a?token": "/a?*", "/a?x=a=b&&z": "/a?x=*&&*",
		"/a?=v": "/a?=*", "*": "*", "": "", "/a?b?c=d": "/a?b?c=*",
	} {
		if got := string(AppendRedacted(nil, []byte(path))); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
