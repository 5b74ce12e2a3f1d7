package provenance

import (
	"container/list"
	"hash/maphash"
	"sync"
)

// A BookConfig configures a [Book]. Seed is required.
type BookConfig struct {
	// Seed keys the digests. It must be random, and known to nobody else.
	Seed maphash.Seed
	// Limit is how many digests one session keeps at most. Default [DefaultLimit].
	Limit int
	// Total is how many digests all sessions keep at most. Default 15<<20, about
	// 1 GB. Beyond it the sessions that were used longest ago are forgotten.
	Total int
}

// A Book holds the indexes of the sessions. It is safe for concurrent use.
//
// A session that is forgotten, or that began before the book, is known by a torn
// index from then on.
type Book struct {
	BookConfig
	mu    sync.Mutex
	pages map[string]*list.Element
	used  *list.List // of *page, the last used first
	total int
}

type page struct {
	mu      sync.Mutex
	session string
	index   *Index
	counted int // guarded by the book's mu
}

// NewBook returns an empty book.
func NewBook(c BookConfig) *Book {
	if c.Limit <= 0 {
		c.Limit = DefaultLimit
	}
	if c.Total <= 0 {
		c.Total = 15 << 20
	}
	return &Book{BookConfig: c, pages: map[string]*list.Element{}, used: list.New()}
}

// With calls f with the index of a session, which nobody else uses meanwhile.
// fresh says that the session has seen nothing yet: only then can a new index be
// whole. f must not keep the index, nor use the book.
func (b *Book) With(session string, fresh bool, f func(*Index)) {
	p := b.page(session, fresh)
	p.mu.Lock()
	f(p.index)
	n := p.index.Len()
	p.mu.Unlock()
	b.count(p, n)
}

func (b *Book) page(session string, fresh bool) *page {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.pages[session]; ok {
		b.used.MoveToFront(e)
		return e.Value.(*page)
	}
	p := &page{session: session, index: New(b.Seed, b.Limit)}
	if !fresh {
		p.index.Tear()
	}
	b.pages[session] = b.used.PushFront(p)
	return p
}

// pageCost is what a page costs besides its digests, in digests.
const pageCost = 16

// count notes the size of a page, and forgets others to make room for it.
func (b *Book) count(p *page, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.pages[p.session]
	if !ok || e.Value.(*page) != p {
		return // forgotten meanwhile
	}
	b.total += n + pageCost - p.counted
	p.counted = n + pageCost
	for b.total > b.Total && b.used.Len() > 1 {
		last := b.used.Back()
		old := b.used.Remove(last).(*page)
		delete(b.pages, old.session)
		b.total -= old.counted
	}
}

// Sessions is how many sessions the book knows.
func (b *Book) Sessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pages)
}
