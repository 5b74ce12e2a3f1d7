//go:build race

package traces

// raceEnabled says that the race detector makes everything many times slower.
const raceEnabled = true
