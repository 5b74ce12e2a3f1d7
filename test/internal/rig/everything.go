package rig

import (
	"context"
	"fmt"
	"os/exec"
)

// StartEverything runs the SDK's everything-server. Stateless it speaks
// 2026-07-28; otherwise it keeps sessions, as 2025-11-25 wants. It returns
// the process and its URL. An empty address takes a free port.
func StartEverything(ctx context.Context, addr string, stateless bool) (*Process, string, error) {
	server, err := Everything()
	if err != nil {
		return nil, "", err
	}
	if addr == "" {
		if addr, err = FreeAddr(); err != nil {
			return nil, "", err
		}
	}
	p, err := Start(exec.Command(server, "-http", addr, fmt.Sprintf("-stateless=%t", stateless)))
	if err != nil {
		return nil, "", err
	}
	if err := p.Listening(ctx, addr); err != nil {
		p.Kill()
		return nil, "", err
	}
	return p, "http://" + addr, nil
}
