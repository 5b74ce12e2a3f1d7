package entity

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"
)

// A SQL is one of the operator's own databases, read by the operator's own
// queries. Its user should be able to read what they need and nothing else.
//
// A query is one SELECT. Its columns are attributes by their names, but "id",
// which is the entity's id, and "parents", a JSON array (or an array of
// PostgreSQL) of what the entity is in: ids, if its type can be in entities of
// one type only, or objects {"type", "id"}. NULL is an attribute that is
// absent.
type SQL struct {
	// Driver is "postgres" or "sqlite".
	Driver string `yaml:"driver"`
	// DSNFile is a file with the connection string of PostgreSQL, which holds a
	// password and therefore is not in the configuration. It is read again for
	// each connection.
	DSNFile string `yaml:"dsn_file"`
	// File is the database of SQLite. It is only read.
	File string `yaml:"file"`
	// Refresh is how often what Types read in full is read again. Default: every
	// 5 seconds.
	Refresh time.Duration `yaml:"refresh"`
	// Timeout bounds one lookup. Default: 2 seconds. Reading in full may take
	// 30 times as long.
	Timeout time.Duration `yaml:"timeout"`
	// Types are the queries by Cedar entity type.
	Types map[string]SQLType `yaml:"types"`
}

// A SQLType is how entities of one type are read. It has all, or one, or both:
// what all doesn't hold is then looked up.
type SQLType struct {
	// All reads all entities. They are kept in memory.
	All string `yaml:"all"`
	// One reads the entity with the id $1, for each decision that needs it.
	One string `yaml:"one"`
	// List reads the ids of at most $2 entities that follow the id $1, which is
	// empty for the first, in order. It serves searches where there is no All.
	List string `yaml:"list"`
}

// full reports whether all entities of the type are in memory.
func (t SQLType) full() bool { return t.All != "" }

// endOfQuery is what may follow a query.
const endOfQuery = "; \t\r\n"

// Defaults and bounds of a database.
const (
	defaultRefresh = 5 * time.Second
	defaultTimeout = 2 * time.Second
	leastRefresh   = 100 * time.Millisecond
	// fullFactor is how many timeouts reading in full may take.
	fullFactor = 30
)

// Check finds what is wrong with the configuration and can be seen without
// reading a source.
func (s Sources) Check() error {
	var errs []error
	looked := map[string]int{}
	for i, c := range s.SQL {
		for _, err := range c.check() {
			errs = append(errs, fmt.Errorf("sql.%d: %w", i, err))
		}
		for t, q := range c.Types {
			if q.One == "" {
				continue
			}
			if other, twice := looked[t]; twice {
				errs = append(errs, fmt.Errorf("sql.%d: types.%s: entities of this type are looked up in sql.%d already", i, t, other))
			}
			looked[t] = i
		}
	}
	for i, f := range s.Files {
		if f == "" {
			errs = append(errs, fmt.Errorf("files.%d is empty", i))
		}
	}
	return errors.Join(errs...)
}

func (c SQL) check() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch c.Driver {
	case "postgres":
		if c.DSNFile == "" || c.File != "" {
			bad("a database of PostgreSQL needs dsn_file, a file with the connection string, and no file")
		}
	case "sqlite":
		if c.File == "" || c.DSNFile != "" {
			bad("a database of SQLite needs file and no dsn_file")
		}
	default:
		bad("driver %q is neither postgres nor sqlite", c.Driver)
	}
	if c.Refresh != 0 && c.Refresh < leastRefresh {
		bad("refresh is shorter than %s", leastRefresh)
	}
	if c.Timeout < 0 {
		bad("timeout is negative")
	}
	if len(c.Types) == 0 {
		bad("types says nothing to read")
	}
	for _, t := range sortedTypes(c.entityTypes()) {
		q := c.Types[string(t)]
		if _, err := types.NewEntityType(string(t)); err != nil {
			bad("types: %q is not the name of an entity type", t)
		}
		for _, text := range []string{q.All, q.One, q.List} {
			if strings.Contains(strings.TrimRight(text, endOfQuery), ";") {
				bad("types.%s: a query is one statement and has no semicolon in it", t)
			}
		}
		switch {
		case q.All == "" && q.One == "":
			bad("types.%s needs a query: all, one, or both", t)
		case q.List != "" && (q.One == "" || q.All != ""):
			bad("types.%s: list is for what is looked up by one and not read by all", t)
		}
	}
	return errs
}

func (c SQL) entityTypes() map[types.EntityType]SQLType {
	out := make(map[types.EntityType]SQLType, len(c.Types))
	for t, q := range c.Types {
		out[types.EntityType(t)] = q
	}
	return out
}

// dsn reads the connection string.
func (c SQL) dsn() (string, error) {
	text, err := os.ReadFile(c.DSNFile)
	if err != nil {
		return "", fmt.Errorf("read dsn_file: %w", err)
	}
	dsn := strings.TrimSpace(string(text))
	if dsn == "" {
		return "", fmt.Errorf("read dsn_file: %s is empty", c.DSNFile)
	}
	return dsn, nil
}
