package entity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// retry is how often a database that failed is tried again.
const retry = time.Second

// A circuit keeps decisions from waiting, each for itself, for a database that
// has failed. It is opened by the first that fails and closed by the directory,
// which tries the database meanwhile.
type circuit struct{ failure atomic.Pointer[error] }

// broken returns why the database is not asked, or nil.
func (c *circuit) broken() error {
	if err := c.failure.Load(); err != nil {
		return fmt.Errorf("not asked again until it answers: %w", *err)
	}
	return nil
}

// note opens the circuit if an error shows that the database failed. patient
// says that it had the time to answer.
func (c *circuit) note(err error, patient bool) {
	if fails(err, patient) {
		c.failure.Store(&err)
	}
}

func (c *circuit) close() { c.failure.Store(nil) }

// fails reports whether an error is the database's rather than the question's:
// an id that a column cannot hold must not keep others from being found.
func fails(err error, patient bool) bool {
	var pg *pgconn.PgError
	var lite *sqlite.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, errAnswer):
		return false
	case errors.Is(err, context.DeadlineExceeded):
		return patient
	case errors.As(err, &pg):
		return !ofQuestion(pg)
	case errors.As(err, &lite):
		// The low byte is the kind of error. An ERROR is one of the query.
		kind := lite.Code() & 0xff
		return kind != sqlite3.SQLITE_ERROR && (kind != sqlite3.SQLITE_INTERRUPT || patient)
	default:
		return true
	}
}

// ofQuestion reports whether the class of an error (PostgreSQL, appendix A) says
// that another question could be answered: data that does not fit, a query
// that is wrong, or one that a function of the operator's refuses.
func ofQuestion(err *pgconn.PgError) bool {
	if len(err.Code) < 2 {
		return false
	}
	switch err.Code[:2] {
	case "21", "22", "42", "P0":
		return true
	default:
		return false
	}
}

// ofData reports whether an error says that a value does not fit (class 22).
func ofData(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, "22")
}
