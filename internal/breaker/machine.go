// Package breaker stops asking for what keeps failing: for a while nothing is
// let through, then one probe.
//
// A breaker is closed, open, or half-open. It opens when enough of the results
// in a window of time are failures; after a pause it lets one probe through,
// which closes it or opens it again for twice as long.
package breaker

import (
	"errors"
	"fmt"
	"time"
)

// Settings say when a breaker opens. Zero fields take their default.
type Settings struct {
	// Off has no breakers.
	Off bool `yaml:"off"`
	// Failures is how many failures in the window it takes. Default 20.
	Failures int `yaml:"failures"`
	// Share is the share, above 0 and up to 1, of the results that must have
	// failed. Default 0.5.
	Share float64 `yaml:"share"`
	// Window is how long a result counts. Default 1m.
	Window time.Duration `yaml:"window"`
	// Pause is how long a breaker stays open the first time; each probe that fails
	// doubles it, up to sixteen times. Default 30s.
	Pause time.Duration `yaml:"pause"`
	// Slow is from when on a call that succeeded counts as a failure. Default:
	// never.
	Slow time.Duration `yaml:"slow"`
}

// Check says what is wrong with the settings.
func (s Settings) Check() error {
	switch {
	case s.Failures < 0:
		return fmt.Errorf("failures: %d is not a number of failures", s.Failures)
	case s.Share < 0 || s.Share > 1:
		return fmt.Errorf("share: %v is not between 0 and 1", s.Share)
	case s.Window < 0 || s.Pause < 0 || s.Slow < 0:
		return errors.New("window, pause and slow cannot be negative")
	case s.Window > 0 && s.Window < buckets*time.Millisecond:
		return errors.New("window: it is too short to count in")
	}
	return nil
}

func (s Settings) withDefaults() Settings {
	if s.Failures == 0 {
		s.Failures = 20
	}
	if s.Share == 0 {
		s.Share = 0.5
	}
	if s.Window == 0 {
		s.Window = time.Minute
	}
	if s.Pause == 0 {
		s.Pause = 30 * time.Second
	}
	return s
}

// A State is what a breaker does.
type State string

// The states.
const (
	Closed   State = "closed"    // everything passes
	Open     State = "open"      // nothing passes
	HalfOpen State = "half_open" // a probe is under way, nothing else passes
)

const (
	buckets     = 6  // of a window
	mostDoubled = 16 // times the first pause
)

// A machine is one breaker. It reads no clock.
type machine struct {
	state  State // empty: closed
	until  time.Time
	pause  time.Duration
	probe  time.Time // when the probe under way began
	counts [buckets]count
	last   time.Time // of the last result
}

type count struct {
	slot       int64 // number of the bucket, since 1970
	good, fail int
}

// at is the state, without what time has changed.
func (m *machine) at() State {
	if m.state == "" {
		return Closed
	}
	return m.state
}

// admit says whether a call may pass, and whether it is the probe. A probe that
// nobody hears of for a pause is given up, and the next call is one.
func (m *machine) admit(s *Settings, now time.Time) (ok, probe bool) {
	switch m.at() {
	case Closed:
		return true, false
	case Open:
		if now.Before(m.until) {
			return false, false
		}
	default:
		if now.Before(m.probe.Add(max(m.pause, s.Pause))) {
			return false, false
		}
	}
	m.state, m.probe = HalfOpen, now
	return true, true
}

// abandon takes a probe back that told nothing.
func (m *machine) abandon(now time.Time) {
	if m.at() == HalfOpen {
		m.state, m.until = Open, now
	}
}

// result takes a result into account.
func (m *machine) result(s *Settings, failed, probe bool, now time.Time) {
	m.last = now
	switch m.at() {
	case HalfOpen:
		if !probe {
			return // of a call from before
		}
		if failed {
			m.open(min(2*m.pause, mostDoubled*s.Pause), now)
			return
		}
		*m = machine{last: now}
	case Open:
		return // of a call from before
	default:
		good, fail := m.count(s, failed, now)
		if fail >= s.Failures && float64(fail) >= s.Share*float64(good+fail) {
			m.open(s.Pause, now)
		}
	}
}

func (m *machine) open(pause time.Duration, now time.Time) {
	*m = machine{state: Open, pause: pause, until: now.Add(pause), last: now}
}

// count adds a result and returns how many there were in the window.
func (m *machine) count(s *Settings, failed bool, now time.Time) (good, fail int) {
	slot := now.UnixNano() / max(1, s.Window.Nanoseconds()/buckets)
	c := &m.counts[((slot%buckets)+buckets)%buckets]
	if c.slot != slot {
		*c = count{slot: slot}
	}
	if failed {
		c.fail++
	} else {
		c.good++
	}
	for _, c := range m.counts {
		if c.slot > slot-buckets && c.slot <= slot {
			good, fail = good+c.good, fail+c.fail
		}
	}
	return good, fail
}

// idle reports whether forgetting the breaker changes nothing.
func (m *machine) idle(s *Settings, now time.Time) bool {
	return m.at() == Closed && now.Sub(m.last) > s.Window
}
