// Package report makes one HTML page of training runs and comparisons: tables
// with their CSV, and plots as inline SVG. The page needs no network, and reads
// well in light and dark and on a phone.
package report
