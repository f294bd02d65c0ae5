package main

import (
	"bytes"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart is groups of bars, one bar for each implementation. The values are
// ratios, unless it is Absolute.
type chart struct {
	File, Title, Unit string
	Groups            []string
	Absolute          bool
	bars              []bar
}

type bar struct {
	name  string
	group int
	value float64
}

// tallest is the height at which a bar is cut off. The label still has its value.
const tallest = 8

func (c *chart) fileName() string { return c.File + ".svg" }

func (c *chart) set(name, group string, value float64) {
	i := slices.Index(c.Groups, group)
	if i < 0 {
		i = len(c.Groups)
		c.Groups = append(c.Groups, group)
	}
	c.bars = append(c.bars, bar{name, i, value})
}

// colours can be told apart with colour blindness (Okabe and Ito).
var colours = map[string]color.Color{
	theFloor:             color.RGBA{0x99, 0x99, 0x99, 0xff},
	ours:                 color.RGBA{0xd5, 0x5e, 0x00, 0xff},
	fenced:               color.RGBA{0xcc, 0x79, 0xa7, 0xff},
	"redsync (rueidis)":  color.RGBA{0x00, 0x72, 0xb2, 0xff},
	"redsync (go-redis)": color.RGBA{0x56, 0xb4, 0xe9, 0xff},
	"bsm/redislock":      color.RGBA{0x00, 0x9e, 0x73, 0xff},
	"rueidislock":        color.RGBA{0xe6, 0x9f, 0x00, 0xff},
}

const (
	chartWidth  = 26 * vg.Centimeter
	chartHeight = 10 * vg.Centimeter
	// legendWidth has room for the longest name in a font that is wider than the chart's: a
	// reader's machine may lack that one.
	legendWidth = 5.5 * vg.Centimeter
	margin      = 0.2 * vg.Centimeter
)

// write draws the chart into dir.
func (c *chart) write(dir string) error {
	p := newPlot()
	p.Title.Text, p.Title.Padding = c.Title, vg.Points(6)
	p.Y.Label.Text = c.Unit
	p.Y.Min = 0
	var groups []string
	for _, g := range c.Groups {
		groups = append(groups, strings.ReplaceAll(g, ", ", "\n"))
	}
	p.NominalX(groups...)
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	p.Add(grid)

	var names []string
	for _, b := range c.bars {
		if !slices.Contains(names, b.name) {
			names = append(names, b.name)
		}
	}
	if err := c.draw(p, names); err != nil {
		return err
	}
	p.Y.Max = max(1, p.Y.Max) * 1.15 // room for the labels above the bars
	p.X.Min, p.X.Max = -0.5, float64(len(groups))-0.5
	p.Y.Tick.Marker = plot.TickerFunc(wholeTicks)
	legend := p.Legend // drawn beside the plot, not over it
	p.Legend = plot.NewLegend()
	legend.Top, legend.Left, legend.Padding = true, true, vg.Points(3)

	canvas := vgsvg.New(chartWidth, chartHeight)
	whole := draw.New(canvas)
	p.Draw(draw.Crop(whole, margin, -legendWidth, margin, -margin))
	legend.Draw(draw.Crop(whole, chartWidth-legendWidth+margin, -margin, 0, -vg.Centimeter))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	// Arial has the same widths, and more readers have it.
	svg := bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif"))
	return os.WriteFile(filepath.Join(dir, c.fileName()), svg, 0o644)
}

func wholeTicks(_, highest float64) []plot.Tick {
	var ticks []plot.Tick
	for v := range int(highest) + 1 {
		ticks = append(ticks, plot.Tick{Value: float64(v), Label: strconv.Itoa(v)})
	}
	return ticks
}

// newPlot returns a plot with a sans-serif font everywhere.
func newPlot() *plot.Plot {
	p := plot.New()
	for _, f := range []*font.Font{
		&p.Title.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Label.TextStyle.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font,
	} {
		f.Variant, f.Size = "Sans", vg.Points(9)
	}
	p.Title.TextStyle.Font.Size, p.X.Tick.Label.Font.Size = vg.Points(11), vg.Points(8)
	return p
}

func (c *chart) draw(p *plot.Plot, names []string) error {
	width := (chartWidth - legendWidth) * 0.7 / vg.Length(len(c.Groups)*len(names))
	inLegend := make(map[string]bool)
	for _, b := range c.bars {
		drawn, err := plotter.NewBarChart(plotter.Values{min(b.value, tallest)}, width)
		if err != nil {
			return err
		}
		drawn.Color, drawn.LineStyle.Width = colours[b.name], 0
		drawn.XMin = float64(b.group)
		drawn.Offset = width * (vg.Length(slices.Index(names, b.name)) - vg.Length(len(names)-1)/2)

		label, err := plotter.NewLabels(plotter.XYLabels{
			XYs:    plotter.XYs{{X: float64(b.group), Y: min(b.value, tallest)}},
			Labels: []string{figure(b.value)},
		})
		if err != nil {
			return err
		}
		// Upright, so that those of neighbours do not overlap: bars are wider than letters are high.
		label.Offset = vg.Point{X: drawn.Offset, Y: vg.Points(3)}
		label.TextStyle[0].Font.Size, label.TextStyle[0].Font.Variant = vg.Points(7), "Sans"
		label.TextStyle[0].Rotation, label.TextStyle[0].YAlign = math.Pi/2, text.YCenter
		p.Add(drawn, label)
		if !inLegend[b.name] {
			inLegend[b.name] = true
			p.Legend.Add(b.name, drawn)
		}
	}
	if c.Absolute {
		return nil
	}
	one := plotter.NewFunction(func(float64) float64 { return 1 })
	one.Dashes = []vg.Length{vg.Points(3), vg.Points(3)}
	p.Add(one)
	return nil
}
