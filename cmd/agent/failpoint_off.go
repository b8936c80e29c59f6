//go:build !failpoint

package main

import (
	"github.com/hotspare/hotspare/internal/agent/actuate"
	"github.com/hotspare/hotspare/internal/config"
)

// failpoints does nothing: only the end-to-end tests build an agent that can be killed at exact points.
func failpoints(*config.Agent, *actuate.Drivers) {}
