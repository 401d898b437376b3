"""How a report looks: one style sheet for screens, light and dark, and for paper."""

from __future__ import annotations

STYLE = """
:root{--paper:#f7f6f3;--card:#fff;--ink:#1f2328;--quiet:#5f656b;--line:#dcdad4;--soft:#e4f0ec;--accent:#1b6555;
--c0:#1b6555;--c1:#b4460f;--c2:#3b5fc0;--c3:#8a3ffc;--c4:#8a6d00;--c5:#5f656b}
@media (prefers-color-scheme:dark){:root{--paper:#15171a;--card:#1e2125;--ink:#e9e7e2;--quiet:#a2a8ae;--line:#363b41;
--soft:#20332d;--accent:#74ccb3;--c0:#74ccb3;--c1:#f0a070;--c2:#8fb1ff;--c3:#c9a2ff;--c4:#e3c75b;--c5:#a2a8ae}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:66rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}h1{font-size:1.5rem;margin:.2rem 0}
h2{font-size:1.2rem;margin:2.4rem 0 .5rem;padding-top:.6rem;border-top:1px solid var(--line)}h3{font-size:1rem;margin:1.4rem 0 .3rem}
p{margin:.4rem 0}a{color:var(--accent)}small,.quiet,figcaption{color:var(--quiet)}code{font-size:.88em}
.verdict{background:var(--card);border:1px solid var(--line);border-left:5px solid var(--accent);border-radius:10px;
padding:.7rem 1.1rem;margin:1rem 0}.verdict li{margin:.35rem 0}.verdict ul{padding-left:1.1rem;margin:.2rem 0}
nav{font-size:.9rem;margin:.6rem 0}nav a{margin-right:.9rem;white-space:nowrap;display:inline-block}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem;margin:.5rem 0;min-width:30rem}
td,th{padding:.32rem .65rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}th{font-weight:600}
td.w,th.w{text-align:left;overflow-wrap:anywhere;min-width:6rem}tr.chosen{background:var(--soft)}
figure{margin:.6rem 0}svg{max-width:100%;height:auto;font-size:12px}svg text{fill:var(--quiet)}svg .note{opacity:.8}
figcaption span{margin-right:1rem;white-space:nowrap;display:inline-block;font-size:.88rem}
figcaption i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
.grid{stroke:var(--line)}.line{fill:none;stroke-width:2}.band{opacity:.16;stroke:none}.bar{fill:var(--c0)}.whisker{stroke:var(--ink);stroke-width:1.5}
svg .c0{stroke:var(--c0)}svg .c1{stroke:var(--c1)}svg .c2{stroke:var(--c2)}svg .c3{stroke:var(--c3)}svg .c4{stroke:var(--c4)}svg .c5{stroke:var(--c5)}
svg .band.c0,svg .dot.c0,i.c0{fill:var(--c0);background:var(--c0)}svg .band.c1,svg .dot.c1,i.c1{fill:var(--c1);background:var(--c1)}
svg .band.c2,svg .dot.c2,i.c2{fill:var(--c2);background:var(--c2)}svg .band.c3,svg .dot.c3,i.c3{fill:var(--c3);background:var(--c3)}
svg .band.c4,svg .dot.c4,i.c4{fill:var(--c4);background:var(--c4)}svg .band.c5,svg .dot.c5,i.c5{fill:var(--c5);background:var(--c5)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:.7rem;margin:.6rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.6rem .7rem;font-size:.86rem;break-inside:avoid}
.pair{display:flex;gap:.5rem}.pair>div{flex:1;min-width:0}.pair img,.pair .none{width:100%;height:6.5rem;object-fit:contain;
background:#fff;border-radius:6px;display:grid;place-items:center;color:#777}.pair p{overflow-wrap:anywhere;margin:.2rem 0 0}
details{margin:.5rem 0}summary{cursor:pointer;font-weight:600}
@media print{body{background:#fff}main{max-width:none;padding:0}nav{display:none}h2{break-after:avoid}details>*{display:block}}
"""
