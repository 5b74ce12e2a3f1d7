//go:build unix

package postgres_test

import (
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/test/postgres"
)

// A cluster starts, answers, survives a crash, and leaves nothing behind.
func TestClusterComesAndGoes(t *testing.T) {
	t.Parallel()
	var dir string
	t.Run("lives", func(t *testing.T) {
		s := postgres.Start(t)
		dsn := s.Database(t, "CREATE TABLE a (n int)", "INSERT INTO a VALUES (1), (2)")
		dir = strings.TrimPrefix(strings.Fields(dsn)[0], "host=")
		s.Stop()
		s.Restart(t)
		db, err := sql.Open("pgx", dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var n int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM a").Scan(&n); err != nil || n != 2 {
			t.Errorf("after a crash: %d rows, %v", n, err)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
}
