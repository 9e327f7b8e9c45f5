package main

import (
	"io"

	"github.com/sandwich-mesh/sandwich/bench/load"
)

func writeHTML(io.Writer, *load.Result) error { return nil }
