package main

import (
	"fmt"
	"net/url"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sandwich-mesh/sandwich/internal/admin"
)

func recordsCommand() *cobra.Command {
	var addr, format, id, service string
	var follow, failed bool
	n := 20
	cmd := &cobra.Command{
		Use:   "records",
		Short: "Show how requests were decided on",
		Long: `Records asks a running proxy how the decisions on its latest requests were made:
the route and the rules that came near, what each filter did, which endpoints
were tried, the fault, and where the time went. Every answer of the proxy's own
and every failure has a record, and one of so many others (serve --record-every).`,
		Example: `  waypoint records
  waypoint records --failed -f
  waypoint records --id 6f1c7f0a-53b8-4d61-9a7e-1f2b3c4d5e6f
  waypoint records -o json -n 100`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch format {
			case "", "line", "text", "json":
			default:
				return fmt.Errorf("-o %s is not understood: write line, text or json", format)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			q := url.Values{"n": {strconv.Itoa(n)}, "format": {format}, "id": {id}, "service": {service}}
			if follow {
				q.Set("f", "1")
			}
			if failed {
				q.Set("failed", "1")
			}
			return admin.Get(ctx, addr, "/records", q, cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&addr, "admin", "127.0.0.1:15000", "the proxy's admin port")
	fl.StringVarP(&format, "output", "o", "", "line, text or json; text for one --id, else line")
	fl.StringVar(&id, "id", "", "the request with this x-request-id")
	fl.StringVar(&service, "service", "", "requests for services with this in their name")
	fl.BoolVar(&failed, "failed", false, "what failed, or was answered by the proxy")
	fl.BoolVarP(&follow, "follow", "f", false, "go on with new ones")
	fl.IntVarP(&n, "number", "n", n, "how many of the latest")
	return cmd
}
