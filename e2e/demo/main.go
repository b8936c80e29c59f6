// Command demo tells the story of hotspare on this machine, from a lease to an empty
// difference after the failback, while it runs. With root on Linux it builds the
// whole site from real parts; elsewhere, or with HOTSPARE_DEMO=sim, it uses `hotspare dev` with
// simulated VMs. It ends with status 1 when anything is not as it tells. `make demo` calls
// it from the top of the repository, where bin/ holds the product's programs.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	keep := os.Getenv("KEEP") == "1"
	if err := tell(ctx, keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}
