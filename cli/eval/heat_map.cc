#include "cli/eval/heat_map.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace gatefold::cli {
namespace {

constexpr int kCell = 30;  // pixels
constexpr int kRow = 22;
constexpr int kLabel = 110;    // width of the tags' column
constexpr int kPanelTop = 44;  // title and expert numbers
constexpr int kGap = 18;
constexpr int kMaxWidth = 1400;

// XML has no way to write most control characters.
std::string Escaped(absl::string_view text) {
  std::string plain(text);
  std::replace_if(plain.begin(), plain.end(), absl::ascii_iscntrl, '?');
  return absl::StrReplaceAll(plain, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

std::string Text(int x, int y, absl::string_view anchor, absl::string_view fill,
                 absl::string_view text) {
  return absl::StrFormat("<text x=\"%d\" y=\"%d\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", x, y,
                         anchor, fill, Escaped(text));
}

// White at no share, full blue at four times an even one; the root keeps small shares visible.
std::string Colour(double share, double even) {
  const double depth = std::min(1.0, std::sqrt(share / std::min(1.0, 4 * even)));
  const auto mix = [depth](int light, int dark) {
    return static_cast<int>(std::lround(light + depth * (dark - light)));
  };
  return absl::StrFormat("#%02x%02x%02x", mix(255, 16), mix(255, 60), mix(255, 120));
}

struct Panel {
  int x, y;
  size_t layer;
};

std::string DrawPanel(const Evaluation& evaluation, const Panel& panel) {
  const ExpertCounts& first = *evaluation.Routed();
  const size_t n_experts = first.by_layer()[panel.layer].size();
  const double even = 1.0 / static_cast<double>(n_experts);
  std::string svg = Text(panel.x + static_cast<int>(n_experts) * kCell / 2, panel.y + 14, "middle",
                         "#222", absl::StrCat("layer ", first.layer_ids()[panel.layer]));
  for (size_t expert = 0; expert < n_experts; ++expert) {
    const int x = panel.x + static_cast<int>(expert) * kCell;
    absl::StrAppend(&svg,
                    Text(x + kCell / 2, panel.y + 34, "middle", "#777", absl::StrCat(expert)));
    for (size_t tag = 0; tag < evaluation.texts.size(); ++tag) {
      const double share = evaluation.texts[tag].experts.Share(panel.layer, expert);
      const int y = panel.y + kPanelTop + static_cast<int>(tag) * kRow;
      absl::StrAppend(&svg, absl::StrFormat("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" "
                                            "fill=\"%s\"/>\n",
                                            x, y, kCell - 1, kRow - 1, Colour(share, even)));
      absl::StrAppend(&svg,
                      Text(x + kCell / 2, y + 15, "middle", share > 2 * even ? "#fff" : "#333",
                           absl::StrFormat("%.0f", 100 * share)));
    }
  }
  return svg;
}

}  // namespace

std::string ExpertHeatMap(const Evaluation& evaluation) {
  if (evaluation.Routed() == nullptr) return "";
  const ExpertCounts& first = *evaluation.Routed();
  const int n_layers = static_cast<int>(first.by_layer().size());
  const int n_tags = static_cast<int>(evaluation.texts.size());
  const int panel_width = static_cast<int>(first.by_layer()[0].size()) * kCell;
  const int panel_height = kPanelTop + n_tags * kRow;
  const int columns =
      std::clamp((kMaxWidth - kLabel) / (panel_width + kGap), 1, std::max(1, n_layers));
  const int rows = (n_layers + columns - 1) / columns;
  const int width = kLabel + columns * (panel_width + kGap);
  const int height = 40 + rows * (panel_height + kGap);

  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
      "font-family=\"sans-serif\" font-size=\"11\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
      width, height, width, height);
  absl::StrAppend(&svg, Text(8, 20, "start", "#222",
                             absl::StrCat(evaluation.model.name(),
                                          ": percent of each tag's choices, by layer and expert")));
  for (int layer = 0; layer < n_layers; ++layer) {
    const int y = 32 + layer / columns * (panel_height + kGap);
    if (layer % columns == 0) {
      for (int tag = 0; tag < n_tags; ++tag) {
        absl::StrAppend(&svg, Text(kLabel - 8, y + kPanelTop + tag * kRow + 15, "end", "#222",
                                   evaluation.texts[tag].tag));
      }
    }
    absl::StrAppend(&svg, DrawPanel(evaluation, {kLabel + layer % columns * (panel_width + kGap), y,
                                                 static_cast<size_t>(layer)}));
  }
  return absl::StrCat(svg, "</svg>\n");
}

}  // namespace gatefold::cli
