// Sphinx's own scores, but for the terms of the glossary: a page on a subject comes before its definition.
var Scorer = {
  score: ([docname, title, anchor, descr, score, filename, kind]) => (docname === "glossary" ? score - 1 : score),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
