// Sphinx's own scores, but for two pages: one on a subject comes before its definition in the glossary, and every page
// before the changelog, which has all words.
var Scorer = {
  score: ([docname, title, anchor, descr, score, filename, kind]) =>
    score - ({ glossary: 1, changelog: 1000 }[docname] ?? 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
