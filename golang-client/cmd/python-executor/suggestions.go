package main

import (
	"cmp"
	"slices"
	"strings"
)

// similarityMin is the minimum similarity of a suggestion: 0 means no common character, 1 means equal.
const similarityMin = 0.6

// didYouMean returns a suggestion to append to an error about an unknown name, or an empty string. The text is that of
// click, which the Python program uses.
func didYouMean(word string, names []string) string {
	near := closest(word, names)
	near = near[:min(3, len(near))]
	slices.Sort(near)
	switch len(near) {
	case 0:
		return ""
	case 1:
		return " Did you mean '" + near[0] + "'?"
	}
	return " (Did you mean one of: '" + strings.Join(near, "', '") + "'?)"
}

// closest returns the names that are similar to word, the most similar one first. It has the same results as Python's
// difflib.get_close_matches, so that both programs suggest the same names.
func closest(word string, names []string) []string {
	var found []string
	for _, name := range names {
		if similarity(name, word) >= similarityMin {
			found = append(found, name)
		}
	}
	slices.SortFunc(found, func(a, b string) int {
		return cmp.Or(cmp.Compare(similarity(b, word), similarity(a, word)), strings.Compare(b, a))
	})
	return found
}

// similarity returns the ratio of difflib.SequenceMatcher.
func similarity(a, b string) float64 {
	x, y := []rune(a), []rune(b)
	return 2 * float64(matching(x, y)) / float64(len(x)+len(y))
}

// matching counts the characters of the longest common substring and, recursively, of those before and after it.
func matching(a, b []rune) int {
	start, other, length := 0, 0, 0
	for i := range len(a) {
		for j := range len(b) {
			if n := commonPrefix(a[i:], b[j:]); n > length {
				start, other, length = i, j, n
			}
		}
	}
	if length == 0 {
		return 0
	}
	return length + matching(a[:start], b[:other]) + matching(a[start+length:], b[other+length:])
}

func commonPrefix(a, b []rune) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
