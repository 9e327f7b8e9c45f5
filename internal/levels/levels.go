package levels

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Longest is how long a level may stay changed: a log that was made talkative
// and forgotten fills disks.
const Longest = 24 * time.Hour

// Levels are the log levels of a program's components.
type Levels struct {
	to   slog.Handler
	base slog.Level

	mu         sync.Mutex
	components map[string]*component
}

// A component is one part of the program that logs.
type component struct {
	level  slog.LevelVar
	revert *time.Timer // guarded by Levels.mu; nil while nothing is to be reverted
	until  time.Time
}

// New returns levels for a program that logs to h, at level base.
func New(h slog.Handler, base slog.Level) *Levels {
	return &Levels{to: h, base: base, components: map[string]*component{}}
}

// Handler returns what a logger of that component writes to. Every line says
// which component it is from.
func (l *Levels) Handler(name string) slog.Handler {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.components[name]
	if c == nil {
		c = new(component)
		c.level.Set(l.base)
		l.components[name] = c
	}
	return handler{l.to.WithAttrs([]slog.Attr{slog.String("component", name)}), c}
}

// A handler lets pass what its component's level says.
type handler struct {
	slog.Handler
	c *component
}

func (h handler) Enabled(_ context.Context, at slog.Level) bool { return at >= h.c.level.Level() }
func (h handler) WithAttrs(a []slog.Attr) slog.Handler          { return handler{h.Handler.WithAttrs(a), h.c} }
func (h handler) WithGroup(name string) slog.Handler            { return handler{h.Handler.WithGroup(name), h.c} }

// A State is what a component writes, and until when.
type State struct {
	Component string
	Level     slog.Level
	Until     time.Time // zero: for good
}

// All returns every component, by name.
func (l *Levels) All() []State {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]State, 0, len(l.components))
	for name, c := range l.components {
		out = append(out, State{name, c.level.Level(), c.until})
	}
	slices.SortFunc(out, func(a, b State) int { return strings.Compare(a.Component, b.Component) })
	return out
}

// Set changes the level of a component, or of all if its name is "*", and takes
// it back after a while.
func (l *Levels) Set(name string, level slog.Level, while time.Duration) error {
	if while <= 0 || while > Longest {
		return fmt.Errorf("a level for %v: write a time of at most %v, such as 10m", while, Longest)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if name != "*" && l.components[name] == nil {
		names := make([]string, 0, len(l.components))
		for n := range l.components {
			names = append(names, n)
		}
		slices.Sort(names)
		return fmt.Errorf("no component %q: write one of %s, or *", name, strings.Join(names, ", "))
	}
	for n, c := range l.components {
		if name == "*" || n == name {
			l.set(c, level, while)
		}
	}
	return nil
}

// set changes one component. mu is held.
func (l *Levels) set(c *component, level slog.Level, while time.Duration) {
	if c.revert != nil {
		c.revert.Stop()
	}
	c.level.Set(level)
	c.until = time.Now().Add(while)
	var t *time.Timer
	t = time.AfterFunc(while, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if c.revert == t { // and not one that was set since
			c.revert, c.until = nil, time.Time{}
			c.level.Set(l.base)
		}
	})
	c.revert = t
}

// Parse reads a level: a word, as Envoy and slog have them.
func Parse(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "trace", "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "critical":
		return slog.LevelError, nil
	case "off":
		return slog.LevelError + 100, nil
	}
	return 0, fmt.Errorf("level %q is not understood: write debug, info, warn, error or off", s)
}
