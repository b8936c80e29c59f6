package raftnode

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestHclogWritesToSlog(t *testing.T) {
	var out bytes.Buffer
	var l hclog.Logger = newSlogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	if l.IsDebug() || !l.IsInfo() || !l.IsError() || l.GetLevel() != hclog.Info {
		t.Error("levels are not those of the handler")
	}
	l = l.Named("raft").Named("net").With("peer-id", "b")
	if l.Name() != "raft.net" || len(l.ImpliedArgs()) != 2 {
		t.Errorf("name %q, args %v", l.Name(), l.ImpliedArgs())
	}
	l.Debug("hidden")
	l.Warn("entering state", "last-index", 7, "servers", hclog.Fmt("%+v", []int{1, 2}), "odd")
	l.StandardLogger(nil).Print("from log")
	text := out.String()
	for _, want := range []string{"level=WARN", `msg="entering state"`, "peer_id=b", "last_index=7", `servers="[1 2]"`, "from log"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if strings.Contains(text, "hidden") {
		t.Error("debug line at level info")
	}
}
