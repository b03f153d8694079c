/* The search of the site: ranks sections by BM25 over titles and texts.

Works without a server. A question needs not have only words of the site: common English words do
not count, the words of SYNONYMS stand for ours, and sections that lack a word rank lower. */
"use strict";

var SiteSearch = (() => {
  /* Words that readers type, and the words of these pages that mean the same. */
  const SYNONYMS = new Map(Object.entries({
    gdpr: "erase forget privacy", privacy: "erase forget gdpr", ccpa: "erase forget gdpr",
    rtbf: "erase forget", anonymize: "erase forget", remove: "delete erase unmark",
    delete: "erase remove purge", drop: "delete", purge: "delete expiry", clean: "delete purge old",
    cleanup: "delete purge old", prune: "delete old", ttl: "expire expiry", retire: "delete old",
    expiration: "expire expiry", lifetime: "expire",
    account: "user", customer: "user", person: "user", member: "user", visitor: "user",
    docker: "container fork gunicorn process worker", container: "docker start process",
    multiprocessing: "fork process", uwsgi: "gunicorn fork wsgi", prefork: "fork celery",
    preload: "fork gunicorn", worker: "process celery gunicorn", thread: "threads",
    threading: "threads", thread_safe: "threads", safe: "guarantee", guid: "uuid user_ids",
    snowflake: "ids int", ulid: "uuid str", email: "str user_ids", string: "str user_ids type",
    identifier: "id", dump: "backup export", snapshot: "backup export", archive: "backup export",
    save: "backup store", recover: "restore backup", chart: "picture to_html", graph: "chart picture",
    plot: "chart picture", heatmap: "heat map retention to_html", heat: "heatmap", html: "to_html page",
    dashboard: "to_html page html", iframe: "fragment to_html embed", embed: "fragment to_html",
    notebook: "jupyter", jupyter: "notebook", power: "days_active at_least",
    engaged: "active days_active", frequency: "days_active at_least", minimum: "at_least least",
    conversion: "funnel", converted: "funnel", step: "funnel", sequence: "ordered funnel",
    order: "ordered", cohort: "retention", churn: "dormant lifecycle retention", params: "arguments",
    parameter: "arguments", option: "options", keyword: "arguments options", setting: "options",
    sharing: "shared", share: "shared", memory: "memory", inmemory: "memory embedded",
    fake: "embedded memory", mock: "embedded memory tests", test: "tests pytest fixture",
    unittest: "tests pytest", async: "asyncio", blocking: "sync synctally", synchronous: "sync blocking",
    django: "wsgi", flask: "wsgi", login: "sign", metric: "monitoring opentelemetry",
    prometheus: "monitoring opentelemetry", ha: "sentinel failover replicas", backfill: "import now",
    historical: "backfill import", csv: "import export", anonymous: "merge visitor",
    alias: "merge", identify: "merge", latency: "benchmarks", performance: "benchmarks",
    speed: "benchmarks", fast: "benchmarks", ssl: "tls", certificate: "tls", password: "connect url",
    forgotten: "forget erase", signature: "arguments", pass: "arguments", more: "least at_least",
    oom: "memory eviction maxmemory", version: "changelog", upgrade: "changelog",
    uuid: "user_ids", int64: "64 bit user_ids", bigint: "64 bit user_ids", primary: "id user_ids",
    recovery: "restore backup", disaster: "backup restore", frequent: "power days_active at_least",
    process: "fork gunicorn", multiple: "several", down: "fails unreachable", outage: "fails",
    crash: "fails killed", unavailable: "fails unreachable", offline: "fails unreachable",
    license: "licence mit", licence: "license mit", windows: "platform", linux: "platform",
    compose: "docker container", segment: "save flag", usage: "limit", rename: "name",
    constructor: "options from_url arguments", __init__: "options from_url arguments",
    python: "requirements", supported: "requirements",
  }));
  /* Groups of words that mean something else than each of them. */
  const PHRASES = [
    [/\b(delet|remov|drop|purg)\w*\b.*\b(user|account|customer|person)s?\b/, "erase user"],
    [/\bretention (policy|policies|period)\b/, "delete old data"],
    [/\bback(s|ed|ing)?[- ]up\b/, "backup"],
    [/\b(\d+|[kx]) (days )?(out )?of (\d+|[nxy])\b/, "at_least days"],
    [/\b(do|does|did|who)\b.*\bthen\b/, "ordered funnel"],
    [/\bfire[- ]and[- ]forget\b|\bwithout (await|waiting)\b/, "buffered marks"],
    [/\bdifferences? between\b/, ""],
    [/\bredis (is |was |goes |went )?(down|away|gone|offline|unavailable|dead|outage|crash\w*)\b/, "redis fails"],
    [/\bchang\w*\b.*\bname\b/, "rename"],
    [/\buser segments?\b|\bsegments? of users\b/, "save segment"],
  ];
  const IGNORED = new Set(("a about all an and any api are as at be been by can cannot could did do does "
    + "doing don for from get give go had has have having hello help happen happens how i if in into is it its "
    + "just let like make many may me mean means much must my need no of on one or our over please "
    + "same should show so some such tell than that the their them then there these they this "
    + "those to too try up use used using very want was way we were what when where which while "
    + "who whom why will with work works would you your").split(" "));
  const WEIGHTS = {guide: 1, reference: 0.75, front: 0.8, twin: 0.4, code: 0.4, project: 0.35};
  const K = 1.2, B = 0.5, TITLE = 2.2, PATH = 0.9, SYNONYM = 0.55, PREFIX = 0.6;
  const RUN = 4, MOST_RUNS = 40, PASTED = 4;

  const stemmer = new Stemmer();
  const stems = new Map();
  const stem = word => {
    if (!stems.has(word)) stems.set(word, stemmer.stemWord(word));
    return stems.get(word);
  };
  const words = text => {
    const found = [];
    for (const [word] of text.toLowerCase().matchAll(/[\p{L}\p{N}_]+/gu)) {
      found.push(word);
      const parts = word.split("_").filter(Boolean);
      if (parts.length > 1) found.push(...parts);
    }
    return found;
  };
  const counts = text => {
    const found = new Map();
    for (const word of words(text)) {
      const term = stem(word);
      found.set(term, (found.get(term) || 0) + 1);
    }
    return found;
  };

  /* Return a function from a question to the best sections: [{section, score}, ...]. */
  const searcher = sections => {
    const entries = sections.map(([page, anchor, title, path, kind, text]) => {
      const texts = counts(text);
      const titles = counts(title), paths = counts(path.join(" "));
      const length = [...texts.values()].reduce((sum, count) => sum + count, 0);
      const said = ` ${words(text).join(" ")} `;
      return {section: {page, anchor, title, path, kind, text}, texts, titles, paths, length, said};
    });
    const mean = entries.reduce((sum, entry) => sum + entry.length, 0) / entries.length;
    const having = new Map();
    for (const {texts, titles} of entries) {
      for (const term of new Set([...texts.keys(), ...titles.keys()])) {
        having.set(term, (having.get(term) || 0) + 1);
      }
    }
    const rarity = term => {
      const count = having.get(term) || 0;
      return Math.log(1 + (entries.length - count + 0.5) / (count + 0.5));
    };
    const weigh = (entry, term) => {
      const count = entry.texts.get(term) || 0;
      const inText = count * (K + 1) / (count + K * (1 - B + B * entry.length / mean));
      const inTitle = entry.titles.has(term) ? TITLE / Math.sqrt(Math.max(1, entry.titles.size / 3)) : 0;
      return inText + inTitle + (entry.paths.has(term) ? PATH : 0);
    };
    /* All terms that a word of the question stands for, with their weights. */
    const meanings = (word, last) => {
      const found = new Map();
      const add = (term, weight) => found.set(term, Math.max(weight, found.get(term) || 0));
      add(stem(word), 1);
      const known = [word, word.replace(/s$/, ""), word.replace(/es$/, "")]
        .map(form => SYNONYMS.get(form)).find(Boolean) || "";
      for (const other of known.split(" ").filter(Boolean)) add(stem(other), SYNONYM);
      if (last && word.length > 2) {  // it may not be typed to its end
        for (const term of having.keys()) if (term.startsWith(word)) add(term, PREFIX);
      }
      return found;
    };
    return question => {
      const text = PHRASES.reduce((said, [phrase, words]) => said.replace(phrase, words),
        question.toLowerCase());
      const typed = words(text);
      /* Four words after each other: few texts share them, but for a message that was pasted. */
      const pasted = words(question).map((_, at, all) => ` ${all.slice(at, at + RUN).join(" ")} `)
        .slice(0, 1 - RUN).slice(0, MOST_RUNS);
      /* Whole names, such as tally.retention and delete_before. */
      const names = text.match(/\w+([._]\w+)+/g) || [text.trim()];
      const wanted = typed.filter(word => !IGNORED.has(word));
      const asked = [...new Set(wanted.length ? wanted : typed)];
      const terms = asked.map((word, at) => {
        const found = meanings(word, at === asked.length - 1);
        const main = stem(word);
        const weight = /^\d+$/.test(word) ? 0.5 : having.has(main) ? rarity(main)
          : Math.max(2, ...[...found.keys()].filter(term => having.has(term)).map(rarity));
        return {found, weight};
      });
      const whole = terms.reduce((sum, {weight}) => sum + weight, 0);
      const results = [];
      for (const entry of entries) {
        let score = 0, covered = 0, headed = 0;
        for (const {found, weight} of terms) {
          let best = 0, share = 0, inTitle = 0;
          for (const [term, worth] of found) {
            const value = worth * weigh(entry, term);
            if (value > best) [best, share] = [value, worth];
            if (entry.titles.has(term)) inTitle = Math.max(inTitle, worth);
          }
          score += weight * best;
          headed += weight * inTitle;
          covered += weight * (best ? Math.min(1, share + 0.2) : 0);
        }
        if (!score) continue;
        const {title, kind} = entry.section;
        const named = names.some(name => `.${title.toLowerCase()}`.endsWith(`.${name}`));
        const runs = pasted.filter(run => entry.said.includes(run)).length;
        score *= (covered / whole) ** 1.5 * (1 + PASTED * runs / Math.max(1, pasted.length));
        score *= (1 + headed / whole) * WEIGHTS[kind] * (named ? 2 : 1);
        results.push({section: entry.section, score});
      }
      results.sort((one, other) => other.score - one.score);
      /* The sections of one page do not fill the list. */
      const shown = new Map();
      return results.filter(({section: {page}}) => {
        shown.set(page, (shown.get(page) || 0) + 1);
        return shown.get(page) <= 3;
      }).slice(0, 30).map(result => ({...result, terms: terms.map(({found}) => found)}));
    };
  };

  /* Return the part of a text that has most of the words of a question, as [word, isOne] pairs. */
  const excerpt = (text, terms) => {
    const all = text.split(" ");
    const hits = all.map(word => {
      const parts = words(word).map(stem);
      return terms.findIndex(found => parts.some(part => (found.get(part) || 0) >= SYNONYM));
    });
    const LENGTH = 32;
    let best = 0, most = -1;
    for (let at = 0; at < all.length; at += 4) {
      const value = new Set(hits.slice(at, at + LENGTH).filter(hit => hit >= 0)).size;
      if (value > most) [best, most] = [at, value];
    }
    const pairs = all.slice(best, best + LENGTH).map((word, at) => [word, hits[best + at] >= 0]);
    if (best) pairs.unshift(["\u2026", false]);
    if (best + LENGTH < all.length) pairs.push(["\u2026", false]);
    return pairs;
  };

  return {searcher, excerpt};
})();

if (typeof document !== "undefined") {
  document.addEventListener("DOMContentLoaded", () => {
    const field = document.getElementById("site-search");
    const list = document.getElementById("site-results");
    const status = document.getElementById("site-status");
    const top = document.documentElement.dataset.content_root;
    const search = SiteSearch.searcher(SECTIONS);
    const make = (kind, text, parent, name) => {
      const node = document.createElement(kind);
      node.textContent = text;
      if (name) node.className = name;
      parent.append(node);
      return node;
    };
    const show = () => {
      const question = field.value.trim();
      list.replaceChildren();
      const found = question ? search(question) : [];
      status.textContent = !question ? "" : found.length ? "" : "Nothing found. Try other words.";
      document.title = question ? `${question} - tallymark` : "Search - tallymark";
      for (const {section, terms} of found) {
        const item = make("li", "", list);
        const link = make("a", section.title, item);
        link.href = top + section.page + (section.anchor && `#${section.anchor}`);
        if (section.path.length) make("span", section.path.join(" \u203a "), item, "path");
        const said = make("p", "", item);
        for (const [word, isOne] of SiteSearch.excerpt(section.text, terms)) {
          if (isOne) make("mark", word, said);
          else said.append(word);
          said.append(" ");
        }
      }
      const address = new URL(location.href);
      address.searchParams.set("q", question);
      history.replaceState(null, "", address);
    };
    field.value = new URLSearchParams(location.search).get("q") || "";
    field.addEventListener("input", show);
    field.form.addEventListener("submit", event => {
      event.preventDefault();
      show();
    });
    field.focus();
    show();
  });
}
