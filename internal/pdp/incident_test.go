package pdp

import (
	"context"
	"strings"
	"testing"
	"time"

	"log/slog"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
)

// keeper keeps what is posted.
type keeper struct{ posted []audit.Record }

func (k *keeper) Append(context.Context, audit.Record) (audit.Receipt, error) {
	return audit.Receipt{}, nil
}
func (k *keeper) Post(r audit.Record) error { k.posted = append(k.posted, r); return nil }

// A remembered answer that turns out wrong is on the record, and the end of all
// shortcuts.
func TestWrongShortcutEndsThemAll(t *testing.T) {
	k := &keeper{}
	p := &PDP{Config: Config{Log: k, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}}
	right := engine.Answer{Allow: true, Code: authz.ReasonPolicyAllow}
	p.check(shortcut{answer: right, found: true}, right, "d1")
	p.check(shortcut{}, right, "d2")
	if s := p.Shortcuts(); s.Wrong > 0 || len(k.posted) > 0 {
		t.Fatalf("%+v, %+v", s, k.posted)
	}
	p.check(shortcut{answer: right, found: true}, engine.Answer{Code: authz.ReasonForbidden}, "d3")
	if s := p.Shortcuts(); s.Wrong != 1 {
		t.Errorf("%+v", s)
	}
	if len(k.posted) != 1 || k.posted[0].Effect != "shortcut_wrong" || !strings.Contains(string(k.posted[0].System), `"real":"forbidden"`) {
		t.Errorf("%+v", k.posted)
	}
}
