//go:build !unix

package bench

import "time"

var began = time.Now()

// cpuTime stands in for the time of the processor.
func cpuTime() time.Duration { return time.Since(began) }
