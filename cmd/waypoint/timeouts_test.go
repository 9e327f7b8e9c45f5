package main

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/sandwich-mesh/sandwich/proxy"
)

// TestTimeFlags: what is not said is the engine's default, and 0 is never.
func TestTimeFlags(t *testing.T) {
	for _, row := range []struct {
		args string
		want proxy.Timeouts
		list string
	}{
		{"", proxy.Timeouts{Head: 10 * time.Second, Body: -1, Idle: time.Hour, Stream: -1, Upgraded: -1, TCP: time.Hour, Detect: time.Second}, "websocket"},
		{"--timeout-tcp 0 --timeout-stream 5m --upgrade websocket,spdy/3.1", proxy.Timeouts{Head: 10 * time.Second, Body: -1, Idle: time.Hour, Stream: 5 * time.Minute, Upgraded: -1, TCP: -1, Detect: time.Second}, "websocket spdy/3.1"},
		{"--upgrade=", proxy.Timeouts{Head: 10 * time.Second, Body: -1, Idle: time.Hour, Stream: -1, Upgraded: -1, TCP: time.Hour, Detect: time.Second}, ""},
	} {
		var f timeFlags
		fl := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.add(fl)
		if err := fl.Parse(strings.Fields(row.args)); err != nil {
			t.Fatal(err)
		}
		if got, err := f.timeouts(); got != row.want || err != nil {
			t.Errorf("%s: got %+v, %v", row.args, got, err)
		}
		if got := f.offers(); got == nil || strings.Join(got, " ") != row.list {
			t.Errorf("%s: upgrades %q", row.args, got)
		}
	}
	f := timeFlags{set: proxy.Timeouts{TCP: -time.Second}}
	if _, err := f.timeouts(); err == nil || !strings.Contains(err.Error(), "--timeout-tcp -1s") {
		t.Errorf("less than never: %v", err)
	}
}
