// Package audit is the only writer of evidence: it makes records durable
// before an answer is given, keeps them in a Merkle log, and proves it.
package audit
