package history

import (
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
	"time"
)

// Layout of the figure, in pixels.
const (
	figureWidth  = 1200
	figureLabel  = 230
	figureRow    = 16
	figureBar    = 10
	figureMargin = 24
)

// keyColors are readable beside each other for the colour-blind too (Okabe-Ito).
var keyColors = []string{"#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"}

// WriteSVG draws the holds over time, a row per contender and a colour per key,
// with the faults below. A hold that was lost ends in a red mark.
func (h *History) WriteSVG(w io.Writer) error {
	var contenders []int
	var keys, faults []string
	var end time.Duration
	for _, hold := range h.Holds {
		contenders, keys = append(contenders, hold.Contender), append(keys, hold.Key)
		end = max(end, hold.Released, hold.End())
	}
	for _, f := range h.Faults {
		faults = append(faults, f.Name)
		end = max(end, f.End)
	}
	contenders, keys, faults = distinct(contenders), distinct(keys), distinct(faults)
	x := func(t time.Duration) float64 {
		return figureLabel + float64(t)/float64(max(end, 1))*(figureWidth-figureLabel-figureMargin)
	}
	height := figureMargin*3 + figureRow*(len(contenders)+len(faults)+1)

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", figureWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", figureWidth, height)
	row := func(i int) int { return figureMargin + i*figureRow }
	label := func(y int, text string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", figureLabel-8, y+figureBar-1, html.EscapeString(text))
	}
	bar := func(y int, from, to time.Duration, color, title string) {
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"><title>%s</title></rect>`+"\n",
			x(from), y, max(x(to)-x(from), 1), figureBar, color, html.EscapeString(title))
	}
	for i, c := range contenders {
		label(row(i), fmt.Sprint("contender ", c))
		for _, hold := range h.Holds {
			if hold.Contender != c {
				continue
			}
			color := keyColors[slices.Index(keys, hold.Key)%len(keyColors)]
			bar(row(i), hold.Returned, hold.End(), color, fmt.Sprintf("%q from %v to %v", hold.Key, hold.Returned, hold.End()))
			if hold.Ended > 0 {
				bar(row(i), hold.End(), hold.End(), "#D00000", "lost")
			}
		}
	}
	for i, name := range faults {
		y := row(len(contenders) + 1 + i)
		label(y, name)
		for _, f := range h.Faults {
			if f.Name == name {
				bar(y, f.Start, f.End, "#999999", fmt.Sprintf("%s from %v to %v", name, f.Start, f.End))
			}
		}
	}
	for s := time.Duration(0); s <= end; s += tickOf(end) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%v</text>`+"\n", x(s), height-figureMargin/2, s)
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#dddddd" stroke-width="0.5"/>`+"\n", x(s), x(s), figureMargin/2, height-figureMargin)
	}
	for i, key := range keys {
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">key %s</text>`+"\n", figureLabel+i*80, figureMargin-8, keyColors[i%len(keyColors)], html.EscapeString(key))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func tickOf(end time.Duration) time.Duration { return max(end/10, time.Second).Round(time.Second) }

func distinct[T int | string](all []T) []T {
	slices.Sort(all)
	return slices.Compact(all)
}
