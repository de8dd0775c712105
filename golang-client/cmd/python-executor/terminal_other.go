//go:build !linux && !darwin

package main

// hasSixel is not implemented on this system.
func hasSixel() bool { return false }
