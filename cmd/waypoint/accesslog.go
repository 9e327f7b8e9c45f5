package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy/accesslog"
)

// logFlags say which requests get a line, and where.
type logFlags struct{ which, format, file string }

func (f *logFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.which, "access-log", "errors", "requests that get a line: none, errors or all")
	fl.StringVar(&f.format, "access-log-format", "text", "how a line looks: text or json, as Istio has them")
	fl.StringVar(&f.file, "access-log-file", "", "where lines go; standard output if empty")
}

// open starts the access log.
func (f *logFlags) open(stdout io.Writer, r *metrics.Registry, log *slog.Logger) (*accesslog.Log, error) {
	o := accesslog.Options{Writer: stdout, Metrics: r, OnError: func(err error) { log.Error("lines are lost", "error", err) }}
	var err error
	if o.Which, err = accesslog.ParseWhich(f.which); err != nil {
		return nil, fmt.Errorf("--access-log: %w", err)
	}
	if o.Format, err = accesslog.ParseFormat(f.format); err != nil {
		return nil, fmt.Errorf("--access-log-format: %w", err)
	}
	if f.file != "" {
		if o.Writer, err = os.OpenFile(f.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640); err != nil {
			return nil, fmt.Errorf("--access-log-file: %w", err)
		}
	}
	return accesslog.New(o), nil
}

// lastLines is how long a log may take for what is left when the program ends.
const lastLines = time.Second

func closeLog(l *accesslog.Log, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), lastLines)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		log.Warn("shutting down", "error", err)
	}
}
