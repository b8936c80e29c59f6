package state

import (
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// table is an ordered, persistent map: changing it returns a new one and leaves the old intact.
type table[T any] struct {
	tree *iradix.Tree[T]
}

func newTable[T any]() table[T] { return table[T]{iradix.New[T]()} }

func (t table[T]) get(key string) (T, bool) { return t.tree.Get([]byte(key)) }

func (t table[T]) len() int { return t.tree.Len() }

func (t *table[T]) set(key string, v T) { t.tree, _, _ = t.tree.Insert([]byte(key), v) }

func (t *table[T]) del(key string) { t.tree, _, _ = t.tree.Delete([]byte(key)) }

// all walks in key order.
func (t table[T]) all() iter.Seq[T] { return t.prefix("") }

// prefix walks the rows whose key starts with p, in key order.
func (t table[T]) prefix(p string) iter.Seq[T] {
	return func(yield func(T) bool) {
		it := t.tree.Root().Iterator()
		it.SeekPrefix([]byte(p))
		for _, v, ok := it.Next(); ok; _, v, ok = it.Next() {
			if !yield(v) {
				return
			}
		}
	}
}
