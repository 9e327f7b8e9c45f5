package account

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv("ACCOUNT_BURN") != "" {
		burn()
		return
	}
	os.Exit(m.Run())
}

// burn uses exactly as much CPU time as each line of its input says, by its own
// count, and answers how much that was.
func burn() {
	in := bufio.NewScanner(os.Stdin)
	me := Meter{os.Getpid()}
	for in.Scan() {
		want, err := time.ParseDuration(in.Text())
		if err != nil {
			fmt.Println(err)
			return
		}
		from, _ := me.Read()
		for x := 1; ; {
			for range 1 << 16 {
				x = x*1664525 + 1013904223
			}
			if to, _ := me.Read(); to.CPU-from.CPU >= want && x != 0 {
				break
			}
		}
		fmt.Println("burnt")
	}
}

func startBurner(t *testing.T) (pid int, say func(string)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ACCOUNT_BURN=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewReader(out)
	return cmd.Process.Pid, func(what string) {
		t.Helper()
		io.WriteString(in, what+"\n")
		got, err := lines.ReadString('\n')
		if err != nil || strings.TrimSpace(got) != "burnt" {
			t.Fatalf("burner answered %q, %v", got, err)
		}
	}
}

// A process that burns a known amount is accounted that amount, whatever else
// the machine does; one that sleeps is accounted nothing.
func TestBurntIsAccounted(t *testing.T) {
	pid, say := startBurner(t)
	m := Meter{pid}
	say("1ms") // the runtime's own start is over
	for _, want := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond} {
		from, err := m.Read()
		if err != nil {
			t.Fatal(err)
		}
		say(want.String())
		to, err := m.Read()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Between(from, to)
		if err != nil {
			t.Fatal(err)
		}
		if got < want-20*time.Millisecond || got > want+40*time.Millisecond {
			t.Errorf("accounted %v for a process that burnt %v", got, want)
		}
	}
	from, err := m.Read()
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(100 * time.Millisecond) // the burner waits for its input
	to, err := m.Read()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Between(from, to); err != nil || got > 20*time.Millisecond {
		t.Errorf("accounted %v, %v for a process that did nothing", got, err)
	}
}

func TestBetween(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, tc := range []struct {
		name     string
		from, to Sample
		want     time.Duration
		lost     bool
	}{
		{"one thread", Sample{Coarse: ms(10), threads: map[int]time.Duration{1: ms(12)}},
			Sample{Coarse: ms(110), threads: map[int]time.Duration{1: ms(112)}}, ms(100), false},
		{"a thread more", Sample{Coarse: ms(10), threads: map[int]time.Duration{1: ms(12)}},
			Sample{Coarse: ms(110), threads: map[int]time.Duration{1: ms(62), 2: ms(50)}}, ms(100), false},
		{"an idle thread less", Sample{Coarse: ms(10), threads: map[int]time.Duration{1: ms(12), 2: ms(500)}},
			Sample{Coarse: ms(110), threads: map[int]time.Duration{1: ms(112)}}, ms(100), false},
		{"a busy thread less", Sample{Coarse: ms(10), threads: map[int]time.Duration{1: ms(12), 2: ms(5)}},
			Sample{Coarse: ms(310), threads: map[int]time.Duration{1: ms(112)}}, ms(100), true},
		{"no threads known", Sample{Coarse: ms(10)}, Sample{Coarse: ms(40)}, ms(30), false},
	} {
		got, err := Between(tc.from, tc.to)
		if got != tc.want || (err != nil) != tc.lost {
			t.Errorf("%s: got %v, %v; want %v, lost %v", tc.name, got, err, tc.want, tc.lost)
		}
	}
}

func TestNoSuchProcess(t *testing.T) {
	if _, err := (Meter{1 << 30}).Read(); err == nil {
		t.Error("reading a process that does not exist gave no error")
	}
	if _, err := Resident(1 << 30); err == nil {
		t.Error("memory of a process that does not exist gave no error")
	}
}

func TestResident(t *testing.T) {
	before, err := Resident(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	after, err := Resident(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got := after - before; got < 60<<20 || got > 160<<20 { // the race detector doubles it
		t.Errorf("64 MiB more were seen as %d KiB more", got>>10)
	}
	if b[0] != 1 {
		t.Error("kept alive")
	}
	m, err := Held(os.Getpid())
	if err != nil || m.RSS < m.Anon || m.RSS > m.Anon+1<<30 {
		t.Errorf("got %+v, %v: all that is resident is a little more than what was allocated", m, err)
	}
}

// The machine has used more once a process has burnt.
func TestBusy(t *testing.T) {
	before, err := Busy()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Log(err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	_, say := startBurner(t)
	say("200ms")
	after, err := Busy()
	if err != nil || after-before < 180*time.Millisecond || after-before > time.Minute {
		t.Errorf("after 200ms of one process: %v more, %v", after-before, err)
	}
}

func TestParsePSTime(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0:00.00":    0,
		"0:01.25":    1250 * time.Millisecond,
		"12:34.50":   12*time.Minute + 34500*time.Millisecond,
		"01:02:03":   time.Hour + 2*time.Minute + 3*time.Second,
		"2-01:00:00": 49 * time.Hour,
	} {
		if got, err := parsePSTime(in); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "7", "a:b", "1:2:3:4", "x-1:00:00", "-1:00"} {
		if got, err := parsePSTime(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}
